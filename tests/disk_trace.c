/* Records what a process does to the files of one folder, in the order in which it is done.

   Preloaded (LD_PRELOAD) into the process. DISK_TRACE_FOLDER is the folder, DISK_TRACE the file that
   gets the records: a header "kind path-length data-length offset" of fixed size, path, data.
   Memory maps are not seen: SQLite's -shm, which every start makes anew. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 4096

static char *names[MAX_FD];
static char folder[PATH_MAX];
static int trace = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int inside;

#define REAL(name) ({ static typeof(&name) found; if (!found) found = dlsym(RTLD_NEXT, #name); found; })

__attribute__((constructor)) static void begin(void) {
    const char *where = getenv("DISK_TRACE_FOLDER"), *path = getenv("DISK_TRACE");
    if (!where || !path) return;
    strncpy(folder, where, sizeof folder - 1);
    trace = REAL(open)(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (trace >= 0) { int high = fcntl(trace, F_DUPFD_CLOEXEC, 900); if (high >= 0) trace = high; }
}

static void record(char kind, const char *path, const void *data, size_t size, long long offset) {
    char header[64];
    snprintf(header, sizeof header, "%c %8zu %12zu %16lld\n", kind, strlen(path), size, offset);
    struct iovec parts[3] = {
        {header, strlen(header)}, {(void *)path, strlen(path)}, {(void *)data, size}};
    if (REAL(writev)(trace, parts, 3) < 0) abort();
}

static int full(int at, const char *path, char *out) {
    if (trace < 0 || !path) return 0;
    if (path[0] == '/') { strncpy(out, path, PATH_MAX - 1); out[PATH_MAX - 1] = 0; }
    else if (at == AT_FDCWD) { if (!getcwd(out, PATH_MAX / 2)) return 0; strcat(out, "/"); strncat(out, path, PATH_MAX / 2 - 2); }
    else return 0;
    size_t length = strlen(folder);
    return strncmp(out, folder, length) == 0 && (out[length] == '/' || out[length] == 0);
}

static int opened(int fd, int at, const char *path, int flags, int existed) {
    char name[PATH_MAX];
    if (fd < 0 || fd >= MAX_FD) return fd;
    free(names[fd]);
    names[fd] = 0;
    if (!full(at, path, name)) return fd;
    size_t length = strlen(name);
    if (length > 4 && strcmp(name + length - 4, "-shm") == 0) return fd;
    names[fd] = strdup(name);
    if (!existed && (flags & O_CREAT)) record('c', name, "", 0, 0);
    if (existed && (flags & O_TRUNC)) record('t', name, "", 0, 0);
    return fd;
}

static int open_any(int at, const char *path, int flags, int mode) {
    if (trace < 0) return REAL(openat)(at, path, flags, mode);
    pthread_mutex_lock(&lock);
    int existed = REAL(faccessat)(at, path, F_OK, 0) == 0;
    int fd = REAL(openat)(at, path, flags, mode);
    int error = errno;
    opened(fd, at, path, flags, existed);
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE int mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, int); va_end(more); }
int open(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE return open_any(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int at, const char *path, int flags, ...) { MODE return open_any(at, path, flags, mode); }
int openat64(int at, const char *path, int flags, ...) { MODE return open_any(at, path, flags, mode); }

int close(int fd) {
    if (fd == trace) return 0;
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < MAX_FD) { free(names[fd]); names[fd] = 0; }
    int result = REAL(close)(fd);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

#define KNOWN(fd) (trace >= 0 && (fd) >= 0 && (fd) < MAX_FD && names[fd])

static ssize_t put(int fd, const void *data, size_t size, off_t offset, int at) {
    if (!KNOWN(fd)) return at ? REAL(pwrite)(fd, data, size, offset) : REAL(write)(fd, data, size);
    pthread_mutex_lock(&lock);
    ssize_t done = at ? REAL(pwrite)(fd, data, size, offset) : REAL(write)(fd, data, size);
    int error = errno;
    if (!at) offset = lseek(fd, 0, SEEK_CUR) - done;
    if (done > 0 && names[fd]) record('w', names[fd], data, done, offset);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}
ssize_t write(int fd, const void *data, size_t size) { return put(fd, data, size, 0, 0); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) { return put(fd, data, size, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) { return put(fd, data, size, offset, 1); }

static int cut(int fd, off_t size) {
    if (!KNOWN(fd)) return REAL(ftruncate)(fd, size);
    pthread_mutex_lock(&lock);
    int result = REAL(ftruncate)(fd, size), error = errno;
    if (!result && names[fd]) record('t', names[fd], "", 0, size);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

/* The record comes after the call: what is written while it runs is not covered by it. */
static int synced(int fd, int (*call)(int)) {
    if (!KNOWN(fd)) return call(fd);
    pthread_mutex_lock(&lock);
    int result = 0, error = errno;  /* The disk of the model is synced, the real one need not be. */
    if (names[fd]) record('s', names[fd], "", 0, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int fsync(int fd) { return synced(fd, REAL(fsync)); }
int fdatasync(int fd) { return synced(fd, REAL(fdatasync)); }

static int named(char kind, const char *from, const char *to, int (*call)(const char *, const char *)) {
    char one[PATH_MAX], two[PATH_MAX];
    int known = full(AT_FDCWD, from, one);
    if (to) known = full(AT_FDCWD, to, two) && known;
    if (!known) return call(from, to);
    pthread_mutex_lock(&lock);
    int result = call(from, to), error = errno;
    if (!result) {
        record(kind, one, to ? two : "", to ? strlen(two) : 0, 0);
        if (kind == 'r')
            for (int fd = 0; fd < MAX_FD; fd++)
                if (names[fd] && strcmp(names[fd], one) == 0) { free(names[fd]); names[fd] = strdup(two); }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
static int real_unlink(const char *path, const char *none) { (void)none; return REAL(unlink)(path); }
static int real_mkdir(const char *path, const char *none) { (void)none; return REAL(mkdir)(path, 0777); }
static int real_rename(const char *from, const char *to) { return REAL(rename)(from, to); }
int unlink(const char *path) { return named('u', path, 0, real_unlink); }
int rename(const char *from, const char *to) { return named('r', from, to, real_rename); }
int mkdir(const char *path, mode_t mode) { (void)mode; return named('d', path, 0, real_mkdir); }
