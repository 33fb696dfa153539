/* Preloaded into a process: its disk is dead while the file DISK_FAULT_WHEN exists, or after
   DISK_FAULT_AFTER operations. Then every read, write, sync and opening of a file below the folder
   DISK_FAULT_FOLDER fails with the error number DISK_FAULT_ERROR. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static int below(const char *path) {
  static int operations;
  const char *folder = getenv("DISK_FAULT_FOLDER"), *when = getenv("DISK_FAULT_WHEN");
  const char *after = getenv("DISK_FAULT_AFTER");
  if (!folder || strncmp(path, folder, strlen(folder))) return 0;
  if (after) return ++operations > atoi(after);
  return when && !access(when, F_OK);
}
static int dead(int fd) {
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t size = readlink(link, path, sizeof path - 1);
  if (size < 0) return 0;
  path[size] = 0;
  return below(path);
}
#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(test) if (test) { errno = atoi(getenv("DISK_FAULT_ERROR")); return -1; }

ssize_t read(int fd, void *data, size_t size) { FAIL(dead(fd)) return REAL(read)(fd, data, size); }
ssize_t write(int fd, const void *data, size_t size) { FAIL(dead(fd)) return REAL(write)(fd, data, size); }
ssize_t pread(int fd, void *data, size_t size, off_t at) { FAIL(dead(fd)) return REAL(pread)(fd, data, size, at); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { FAIL(dead(fd)) return REAL(pwrite)(fd, data, size, at); }
ssize_t pread64(int fd, void *data, size_t size, off64_t at) { FAIL(dead(fd)) return REAL(pread64)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { FAIL(dead(fd)) return REAL(pwrite64)(fd, data, size, at); }
int fsync(int fd) { FAIL(dead(fd)) return REAL(fsync)(fd); }
int fdatasync(int fd) { FAIL(dead(fd)) return REAL(fdatasync)(fd); }
int ftruncate(int fd, off_t size) { FAIL(dead(fd)) return REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { FAIL(dead(fd)) return REAL(ftruncate64)(fd, size); }
int rename(const char *from, const char *to) { FAIL(below(from)) return REAL(rename)(from, to); }
int unlink(const char *path) { FAIL(below(path)) return REAL(unlink)(path); }
int stat(const char *path, struct stat *found) { FAIL(below(path)) return REAL(stat)(path, found); }
int stat64(const char *path, struct stat64 *found) { FAIL(below(path)) return REAL(stat64)(path, found); }

#define OPEN(name)                                                            \
  int name(const char *path, int flags, ...) {                                \
    va_list rest;                                                             \
    va_start(rest, flags);                                                    \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;   \
    va_end(rest);                                                             \
    FAIL(below(path))                                                         \
    return REAL(name)(path, flags, mode);                                     \
  }
OPEN(open)
OPEN(open64)
