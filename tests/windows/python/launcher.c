/* python.exe: loads python311.dll from its own folder and hands it the command line. */
#include <wchar.h>
#include <windows.h>

typedef int (*Main)(int, wchar_t **);

int wmain(int argc, wchar_t **argv) {
    HMODULE python = LoadLibraryW(L"python311.dll");
    if (!python) return 103;
    return ((Main)(void *)GetProcAddress(python, "Py_Main"))(argc, argv);
}
