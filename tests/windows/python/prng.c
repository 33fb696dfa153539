/* bcryptprimitives.dll: Wine 8 has none; Rust programs (mqtt5, cryptography) take their random
   bytes from its ProcessPrng. SystemFunction036 is RtlGenRandom of advapi32. */
#include <windows.h>

BOOLEAN NTAPI SystemFunction036(PVOID, ULONG);

__declspec(dllexport) BOOL WINAPI ProcessPrng(PBYTE to, SIZE_T size) {
    return SystemFunction036(to, (ULONG)size);
}
