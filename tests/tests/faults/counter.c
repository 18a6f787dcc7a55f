/* A program for a container that holds nothing else.
 *
 *   counter count     counts SIGTERM, as a child in another session does; a second after the first one both tell how
 *                     many there were and whether the image can still be read, in output.json
 *   counter die N     ends by signal N
 *   counter spaces    writes the size of the file systems of the home and of temporary directories, in which it has made
 *                     a file, into output.json
 *   counter environment  writes its environment there
 *   counter gate      writes whether the file `gate` is there; if it is not, it makes the file `waiting`, waits for it, and
 *                     fails
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static volatile sig_atomic_t heard;

static void hear(int signal)
{
    (void)signal;
    heard++;
}

/* Waits for the first signal, and then long enough for any further one. */
static int count(void)
{
    for (int ticks = 0; !heard && ticks < 6000; ticks++)
        usleep(10000);
    for (int ticks = 0; ticks < 100; ticks++)
        usleep(10000);
    return heard;
}

static int can_read_image(void)
{
    char bytes[4096];
    int file = open("/bin/counter", O_RDONLY);
    int can = file >= 0 && read(file, bytes, sizeof bytes) == sizeof bytes;
    if (file >= 0)
        close(file);
    return can;
}

/* Its size in bytes, or 0 if no file can be made there. */
static unsigned long long size_of(const char *directory)
{
    char path[4096];
    struct statvfs about;
    FILE *file;
    snprintf(path, sizeof path, "%s/made by the test", directory);
    if (!(file = fopen(path, "w")) || fclose(file) || statvfs(directory, &about))
        return 0;
    return (unsigned long long)about.f_blocks * about.f_frsize;
}

static int tell_spaces(void)
{
    FILE *out = fopen("output.json", "w");
    if (!out)
        return 1;
    fprintf(out, "{\"home\":%llu,\"/tmp\":%llu,\"/var/tmp\":%llu,\"/work\":%llu}\n", size_of(getenv("HOME")),
            size_of("/tmp"), size_of("/var/tmp"), size_of("/work"));
    return fclose(out) ? 1 : 0;
}

/* No value of a test needs to be escaped; what needs it is left out. */
static int tell_environment(void)
{
    FILE *out = fopen("output.json", "w");
    const char *comma = "";
    if (!out)
        return 1;
    fprintf(out, "{\"environment\":[");
    for (char **variable = environ; *variable; variable++) {
        if (strpbrk(*variable, "\"\\\n"))
            continue;
        fprintf(out, "%s\"%s\"", comma, *variable);
        comma = ",";
    }
    fprintf(out, "]}\n");
    return fclose(out) ? 1 : 0;
}

static int wait_for_gate(void)
{
    FILE *out;
    if (!access("gate", F_OK))
        return !(out = fopen("output.json", "w")) || fputs("true\n", out) < 0 || fclose(out);
    if (!(out = fopen("waiting", "w")) || fclose(out))
        return 1;
    for (int ticks = 0; access("gate", F_OK) && ticks < 6000; ticks++)
        usleep(10000);
    return 7;
}

int main(int argc, char **argv)
{
    struct sigaction action;
    FILE *out;
    int status, first, pid;

    if (argc == 3 && !strcmp(argv[1], "die")) {
        raise(atoi(argv[2]));
        pause();
    }
    if (argc == 2 && !strcmp(argv[1], "spaces"))
        return tell_spaces();
    if (argc == 2 && !strcmp(argv[1], "environment"))
        return tell_environment();
    if (argc == 2 && !strcmp(argv[1], "gate"))
        return wait_for_gate();
    if (argc != 2 || strcmp(argv[1], "count")) {
        fprintf(stderr, "counter: what is to be done?\n");
        return 2;
    }
    memset(&action, 0, sizeof action);
    action.sa_handler = hear;
    sigaction(SIGTERM, &action, NULL);
    if ((pid = fork()) == 0) {
        setsid();
        return count();
    }
    first = count();
    if (waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || !(out = fopen("output.json", "w"))) {
        perror("counter");
        return 1;
    }
    fprintf(out, "{\"first\":%d,\"child\":%d,\"image\":%s}\n", first, WEXITSTATUS(status),
            can_read_image() ? "true" : "false");
    return fclose(out) ? 1 : 0;
}
