/* A machine that misbehaves, to be preloaded into a program under test. Where the HOME of the program has a file
 *
 *   no-sync        nothing is synced any more (EIO)
 *   clock-offset   the clock is wrong by as many seconds as the file says
 *
 * Only calls by way of libc are met: those of SQLite and of Rust's standard library are.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

/* Opens the file with this name in HOME; -1 if there is none. */
static int open_at_home(const char *name)
{
    char path[4096];
    const char *home = getenv("HOME");
    if (!home || snprintf(path, sizeof path, "%s/%s", home, name) >= (int)sizeof path)
        return -1;
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int syncs(void)
{
    int before = errno;
    int file = open_at_home("no-sync");
    errno = before;
    if (file < 0)
        return 1;
    close(file);
    errno = EIO;
    return 0;
}

static long long clock_offset(void)
{
    char text[32];
    int before = errno;
    int file = open_at_home("clock-offset");
    ssize_t length = 0;
    if (file >= 0) {
        length = read(file, text, sizeof text - 1);
        close(file);
    }
    errno = before;
    text[length > 0 ? length : 0] = '\0';
    return strtoll(text, NULL, 10);
}

int fsync(int file)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    return syncs() ? real(file) : -1;
}

int fdatasync(int file)
{
    static int (*real)(int);
    if (!real)
        real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    return syncs() ? real(file) : -1;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    int code;
    if (!real)
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    code = real(clock, now);
    if (code == 0 && clock == CLOCK_REALTIME)
        now->tv_sec += (time_t)clock_offset();
    return code;
}
