/* Loaded before the C library: one call of one kind fails, or comes back short. See calls.py.
 *
 * The state lies in a file that the test maps too. All arguments are handed on as they came in registers, so one shape
 * serves every function; only what is short, closes, or returns a pointer or an errno differs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { ERROR, SHORT };
enum { PLAIN, BYTES, PARTS, POINTER, ERRNO, CLOSE };

struct state {
    atomic_int armed, call, nth, fault, error, hits, counts[64];
};

struct part {
    void *base;
    unsigned long size;
};

typedef long function(long, long, long, long, long, long);

static struct state *state;

static long act(function *real, int call, int shape, long a, long b, long c, long d, long e, long f)
{
    if (!state || !state->armed || atomic_fetch_add(&state->counts[call], 1) + 1 != state->nth || call != state->call)
        return real(a, b, c, d, e, f);
    state->hits++;
    if (state->fault == SHORT) {
        if (shape == BYTES)
            return real(a, b, c > 1 ? c / 2 : c, d, e, f);
        if (shape == PARTS && c > 0) {
            struct part first = *(struct part *)b;
            if (first.size > 1)
                first.size /= 2;
            return real(a, (long)&first, 1, d, e, f);
        }
        return real(a, b, c, d, e, f);
    }
    if (shape == ERRNO)
        return state->error;
    if (shape == CLOSE)
        real(a, b, c, d, e, f);
    errno = state->error;
    return shape == POINTER ? 0 : -1;
}

#define CALL(name, call, shape)                                                                                        \
    long name(long a, long b, long c, long d, long e, long f)                                                          \
    {                                                                                                                  \
        static function *real;                                                                                         \
        if (!real)                                                                                                     \
            real = (function *)dlsym(RTLD_NEXT, #name);                                                                \
        return act(real, call, shape, a, b, c, d, e, f);                                                               \
    }

/* The numbers are the places of the names in CALLS of calls.py. */
CALL(open, 0, PLAIN)
CALL(open64, 0, PLAIN)
CALL(openat, 0, PLAIN)
CALL(openat64, 0, PLAIN)
CALL(read, 1, BYTES)
CALL(pread, 2, BYTES)
CALL(pread64, 2, BYTES)
CALL(preadv, 2, PARTS)
CALL(preadv64, 2, PARTS)
CALL(preadv64v2, 2, PARTS)
CALL(write, 3, BYTES)
CALL(pwrite, 4, BYTES)
CALL(pwrite64, 4, BYTES)
CALL(writev, 5, PARTS)
CALL(pwritev, 5, PARTS)
CALL(pwritev64, 5, PARTS)
CALL(pwritev2, 5, PARTS)
CALL(pwritev64v2, 5, PARTS)
CALL(fsync, 6, PLAIN)
CALL(fdatasync, 7, PLAIN)
CALL(ftruncate, 8, PLAIN)
CALL(ftruncate64, 8, PLAIN)
CALL(fallocate, 9, PLAIN)
CALL(fallocate64, 9, PLAIN)
CALL(posix_fallocate, 9, ERRNO)
CALL(posix_fallocate64, 9, ERRNO)
CALL(rename, 10, PLAIN)
CALL(renameat, 10, PLAIN)
CALL(renameat2, 11, PLAIN)
CALL(link, 12, PLAIN)
CALL(linkat, 12, PLAIN)
CALL(unlink, 13, PLAIN)
CALL(unlinkat, 13, PLAIN)
CALL(mkdir, 14, PLAIN)
CALL(mkdirat, 14, PLAIN)
CALL(rmdir, 15, PLAIN)
CALL(stat, 16, PLAIN)
CALL(stat64, 16, PLAIN)
CALL(lstat, 16, PLAIN)
CALL(lstat64, 16, PLAIN)
CALL(fstatat, 16, PLAIN)
CALL(fstatat64, 16, PLAIN)
CALL(fstat, 17, PLAIN)
CALL(fstat64, 17, PLAIN)
CALL(opendir, 18, POINTER)
CALL(fdopendir, 18, POINTER)
CALL(readdir, 19, POINTER)
CALL(readdir64, 19, POINTER)
CALL(close, 20, CLOSE)
CALL(fcntl, 21, PLAIN)
CALL(fcntl64, 21, PLAIN)
CALL(flock, 22, PLAIN)
CALL(copy_file_range, 23, PLAIN)
CALL(access, 24, PLAIN)
CALL(lseek, 25, PLAIN)
CALL(lseek64, 25, PLAIN)

extern void *mmap(void *, unsigned long, int, int, int, long);

__attribute__((constructor)) static void begin(void)
{
    const char *path = getenv("ZARRSTORE_FAULTS");
    if (!path)
        return;
    long fd = open((long)path, 2, 0, 0, 0, 0);
    void *found = mmap(0, sizeof *state, 3, 1, (int)fd, 0);
    close(fd, 0, 0, 0, 0, 0);
    if (found != (void *)-1)
        state = found;
}
