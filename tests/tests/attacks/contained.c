/* What a job in a container tries. Each attack writes its name and how far it got into output.json: "reached", or the
 * error that it met.
 *
 *   contained setuid | namespaces | keys
 *   contained network PORT NAME   a listener of the node at 127.0.0.1, and one with an abstract name
 *   contained open PATH...        opens files to be written to
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

/* Newer than some headers. */
enum { CLONE3 = 435, OPENAT2 = 437, PIDFD_OPEN = 434, PIDFD_GETFD = 438, IO_URING_SETUP = 425, FCHMODAT2 = 452 };
enum { OPEN_TREE = 428, ONLY_OF_USERS = 1 };

typedef int attack(void);

static FILE *out;
static int count;

static void tell(const char *name, const char *end)
{
    fprintf(out, "%s\"%s\":\"%s\"", count++ ? "," : "{", name, end);
    fflush(out);
}

/* In a process of its own: an attack may end it. It returns 0 if it had success, else the number of an error. */
static void try(const char *name, attack *attack)
{
    pid_t pid = fork();
    if (pid == 0) {
        alarm(20);
        _exit(attack());
    }
    int status = 0;
    waitpid(pid, &status, 0);
    if (WIFSIGNALED(status))
        tell(name, strsignal(WTERMSIG(status)));
    else
        tell(name, WEXITSTATUS(status) ? strerrorname_np(WEXITSTATUS(status)) : "reached");
}

#define TRY(attack) try(#attack, attack)

/* A file that others may run as who it belongs to. */
static int has_bits(const char *name)
{
    struct stat file;
    return stat(name, &file) == 0 && (file.st_mode & 06000) ? 0 : ENOENT;
}

static int file(void)
{
    unlink("copy");
    return open("copy", O_CREAT | O_RDWR, 0755);
}

static int after(long answer)
{
    return answer < 0 ? errno : has_bits("copy");
}

static int by_chmod(void) { file(); return after(syscall(SYS_chmod, "copy", 04755)); }
static int by_chmod_both(void) { file(); return after(syscall(SYS_chmod, "copy", 06755)); }
static int by_fchmod(void) { return after(syscall(SYS_fchmod, file(), 04755)); }
static int by_fchmodat(void) { file(); return after(syscall(SYS_fchmodat, AT_FDCWD, "copy", 04755)); }
static int by_fchmodat2(void) { file(); return after(syscall(FCHMODAT2, AT_FDCWD, "copy", 04755, 0)); }

/* Each way to make a file, with a setuid bit and with a setgid bit. */
#define BIRTH(way, answer) \
    static int way##_of(int mode) { unlink("copy"); return after(answer); } \
    static int way(void) { return way##_of(04755); } \
    static int way##_setgid(void) { return way##_of(02755); }

static long named(long fd)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/self/fd/%ld", fd);
    return fd < 0 ? fd : linkat(AT_FDCWD, path, AT_FDCWD, "copy", AT_SYMLINK_FOLLOW);
}

BIRTH(by_open, syscall(SYS_open, "copy", O_CREAT | O_RDWR, mode))
BIRTH(by_openat, syscall(SYS_openat, AT_FDCWD, "copy", O_CREAT | O_RDWR, mode))
BIRTH(by_creat, syscall(SYS_creat, "copy", mode))
BIRTH(by_mknod, syscall(SYS_mknod, "copy", S_IFREG | mode, 0))
BIRTH(by_mknodat, syscall(SYS_mknodat, AT_FDCWD, "copy", S_IFREG | mode, 0))
BIRTH(without_a_name, named(syscall(SYS_open, ".", O_TMPFILE | O_RDWR, mode)))
BIRTH(without_a_name_at, named(syscall(SYS_openat, AT_FDCWD, ".", O_TMPFILE | O_RDWR, mode)))

static int by_openat2(void)
{
    uint64_t how[3] = {O_CREAT | O_RDWR, 04755, 0};
    unlink("copy");
    return after(syscall(OPENAT2, AT_FDCWD, "copy", how, sizeof how));
}

/* By the numbers that 32-bit programs use. */
static int as_a_program_of_32_bits(void)
{
#ifdef __x86_64__
    /* It takes no pointer above 4 GiB; a static program lies below. */
    static char name[] = "copy";
    file();
    long answer = 15;
    __asm__ volatile("int $0x80" : "+a"(answer) : "b"((long)name), "c"(04755L) : "memory", "r8", "r9", "r10", "r11");
    errno = (int)-answer;
    return after(answer < 0 ? -1 : 0);
#else
    return ENOSYS;
#endif
}

static int with_a_ring(void)
{
    char parameters[256] = {0};
    return syscall(IO_URING_SETUP, 4, parameters) < 0 ? errno : 0;
}

static int by_unshare(void) { return syscall(SYS_unshare, CLONE_NEWUSER) ? errno : 0; }
static int with_a_network(void) { return syscall(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNET) ? errno : 0; }

static int ended(long pid)
{
    if (pid < 0)
        return errno;
    if (pid == 0)
        _exit(0);
    waitpid((pid_t)pid, NULL, 0);
    return 0;
}

static int by_clone(void) { return ended(syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0)); }

static long clone3(uint64_t flags)
{
    struct clone_args arguments = {.flags = flags, .exit_signal = SIGCHLD};
    return syscall(CLONE3, &arguments, sizeof arguments);
}

static int by_clone3(void) { return ended(clone3(CLONE_NEWUSER)); }

/* What is answered with "there is no such call" for want of a tracer: here is one. */
static int with_a_tracer(int old)
{
    pid_t child = fork();
    if (child == 0) {
        raise(SIGSTOP);
        _exit(by_clone3());
    }
    int status = 0;
    if (old) {
        if (ptrace(PTRACE_ATTACH, child, 0, 0))
            return errno;
        waitpid(child, &status, WUNTRACED);
        if (syscall(SYS_ptrace, old, child, 0, PTRACE_O_TRACESECCOMP)) {
            int problem = errno;
            kill(child, SIGKILL);
            return problem;
        }
        ptrace(PTRACE_CONT, child, 0, 0);
    } else if (ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACESECCOMP)) {
        int problem = errno;
        kill(child, SIGKILL);
        return problem;
    }
    kill(child, SIGCONT);
    for (;;) {
        if (waitpid(child, &status, 0) < 0)
            return errno;
        if (WIFEXITED(status))
            return WEXITSTATUS(status);
        if (WIFSIGNALED(status))
            return EINTR;
        ptrace(PTRACE_CONT, child, 0, 0);
    }
}

static int traced(void) { return with_a_tracer(0); }
static int traced_by_options(void) { return with_a_tracer(PTRACE_SETOPTIONS); }
static int traced_by_old_options(void)
{
#ifdef __x86_64__
    return with_a_tracer(21);
#else
    return ENOSYS;
#endif
}

/* A filter of its own that asks a listener, who lets everything pass. */
static void let_pass(int listener)
{
    struct seccomp_notif asked = {0};
    struct seccomp_notif_resp answer = {0};
    if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &asked) == 0) {
        answer.id = asked.id;
        answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
}

static int listened_to(void)
{
    struct sock_filter rules[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, CLONE3, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {.len = sizeof rules / sizeof *rules, .filter = rules};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    long listener = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener < 0)
        return errno;
    /* Made by clone, which the filter does not ask about. */
    pid_t helper = fork();
    if (helper == 0) {
        let_pass((int)listener);
        _exit(0);
    }
    return by_clone3();
}

static int mount_within(void)
{
    if (syscall(SYS_unshare, CLONE_NEWUSER | CLONE_NEWNS))
        return errno;
    return mount("none", "/tmp", "tmpfs", 0, NULL) ? errno : 0;
}

static int mount_without(void) { return mount("none", "/tmp", "tmpfs", 0, NULL) ? errno : 0; }

/* Of the newer calls for mounts, the one that asks for no right. */
static int mount_looked_at(void) { return syscall(OPEN_TREE, AT_FDCWD, "/", 0) < 0 ? errno : 0; }

static int faults_of_pages(void) { return syscall(SYS_userfaultfd, O_CLOEXEC | ONLY_OF_USERS) < 0 ? errno : 0; }

/* What a program needs all the same. */
static void *nothing(void *of) { return of; }

static int threads(void)
{
    pthread_t thread;
    int problem = pthread_create(&thread, NULL, nothing, NULL);
    return problem ? problem : pthread_join(thread, NULL);
}

static int modes(void)
{
    file();
    mkdir("folder", 0777);
    return chmod("copy", 0700) || chmod("folder", 02755) || chmod("folder", 01777) ? errno : 0;
}

static int debugging(void)
{
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    int failed = ptrace(PTRACE_SEIZE, child, 0, PTRACE_O_TRACEFORK) ? errno : 0;
    kill(child, SIGKILL);
    return failed;
}

static int keyring(void) { return syscall(SYS_keyctl, 0, -3, 0) < 0 ? errno : 0; }
static int key(void) { return syscall(SYS_add_key, "user", "hpc-queue", "x", 1, -3) < 0 ? errno : 0; }

static int descriptor(void)
{
    pid_t child = fork();
    if (child == 0)
        for (;;)
            pause();
    long process = syscall(PIDFD_OPEN, child, 0);
    int failed = process < 0 || syscall(PIDFD_GETFD, process, 0, 0) < 0 ? errno : 0;
    kill(child, SIGKILL);
    return failed;
}

static struct sockaddr_in listener;
static struct sockaddr_un abstract;
static socklen_t abstract_length;

static int port_of_the_node(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&listener, sizeof listener) ? errno : 0;
}

static int abstract_name(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&abstract, abstract_length) ? errno : 0;
}

static int virtual_machine(void) { return socket(AF_VSOCK, SOCK_STREAM, 0) < 0 ? errno : 0; }

static int own_localhost(void)
{
    struct sockaddr_in own = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof own;
    int fd = socket(AF_INET, SOCK_STREAM, 0), caller = socket(AF_INET, SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&own, sizeof own) || listen(fd, 1) ||
        getsockname(fd, (struct sockaddr *)&own, &length))
        return errno;
    return connect(caller, (struct sockaddr *)&own, sizeof own) ? errno : 0;
}

static int localhost_has_a_name(void)
{
    char names[4096] = "";
    FILE *hosts = fopen("/etc/hosts", "r");
    if (!hosts)
        return errno;
    fread(names, 1, sizeof names - 1, hosts);
    return strstr(names, "127.0.0.1 localhost") ? 0 : ENOENT;
}

int main(int length, char **words)
{
    out = fopen("output.json", "w");
    if (!out || length < 2)
        return 2;
    setvbuf(out, NULL, _IONBF, 0);
    if (!strcmp(words[1], "setuid")) {
        TRY(by_chmod), TRY(by_chmod_both), TRY(by_fchmod), TRY(by_fchmodat), TRY(by_fchmodat2), TRY(by_openat2);
        TRY(by_open), TRY(by_openat), TRY(by_creat), TRY(by_mknod), TRY(by_mknodat), TRY(without_a_name);
        TRY(without_a_name_at), TRY(by_open_setgid), TRY(by_openat_setgid), TRY(by_creat_setgid);
        TRY(by_mknod_setgid), TRY(by_mknodat_setgid), TRY(without_a_name_setgid), TRY(without_a_name_at_setgid);
        TRY(as_a_program_of_32_bits), TRY(with_a_ring), TRY(modes);
        unlink("copy");
    } else if (!strcmp(words[1], "namespaces")) {
        TRY(by_unshare), TRY(with_a_network), TRY(by_clone), TRY(by_clone3), TRY(traced), TRY(traced_by_options);
        TRY(traced_by_old_options), TRY(listened_to), TRY(mount_within), TRY(mount_without), TRY(mount_looked_at);
        TRY(faults_of_pages), TRY(threads), TRY(debugging);
    } else if (!strcmp(words[1], "keys")) {
        TRY(keyring), TRY(key), TRY(descriptor);
    } else if (!strcmp(words[1], "network") && length == 4) {
        listener.sin_family = AF_INET;
        listener.sin_port = htons((uint16_t)atoi(words[2]));
        listener.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        abstract.sun_family = AF_UNIX;
        strncpy(abstract.sun_path + 1, words[3], sizeof abstract.sun_path - 2);
        abstract_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(words[3]));
        TRY(port_of_the_node), TRY(abstract_name), TRY(virtual_machine), TRY(own_localhost), TRY(localhost_has_a_name);
    } else if (!strcmp(words[1], "open")) {
        for (int at = 2; at < length; at++)
            tell(words[at], open(words[at], O_WRONLY) < 0 ? strerrorname_np(errno) : "reached");
    } else {
        return 2;
    }
    fputs("}\n", out);
    return fclose(out);
}
