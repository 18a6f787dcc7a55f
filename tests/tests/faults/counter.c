/* A program for a container that holds nothing else.
 *
 *   counter count     counts SIGTERM, as a child in another session does; a second after the first one both tell how
 *                     many there were and whether the image can still be read, in output.json
 *   counter die N     ends by signal N
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

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

int main(int argc, char **argv)
{
    struct sigaction action;
    FILE *out;
    int status, first, pid;

    if (argc == 3 && !strcmp(argv[1], "die")) {
        raise(atoi(argv[2]));
        pause();
    }
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
