/* A program for a container that holds nothing else: it tells what a job can see, and how well it can be ended.
 *
 *   probe look PATH...  writes output.json: ids, directory, environment, and of each PATH whether it exists and can be
 *                       written to
 *   probe linger        leaves a child in another session and an orphan behind; all ignore SIGTERM and hold a lock on
 *                       the file `lock` in the job directory until the last of them is gone
 *   probe fatal         fails as Apptainer itself fails, to be mistaken for it
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

extern char **environ;

static void print_string(FILE *out, const char *text)
{
    fputc('"', out);
    for (; *text; text++) {
        unsigned char byte = (unsigned char)*text;
        if (byte == '"' || byte == '\\')
            fprintf(out, "\\%c", byte);
        else if (byte < 0x20)
            fprintf(out, "\\u%04x", byte);
        else
            fputc(byte, out);
    }
    fputc('"', out);
}

static int look(char **paths)
{
    char directory[4096] = "";
    FILE *out;
    if (!getcwd(directory, sizeof directory) || !(out = fopen("output.json", "w"))) {
        perror("probe");
        return 1;
    }
    fprintf(out, "{\"uid\":%u,\"gid\":%u,\"pid\":%d,\"directory\":", getuid(), getgid(), getpid());
    print_string(out, directory);
    fprintf(out, ",\"environment\":[");
    for (char **variable = environ; *variable; variable++) {
        if (variable != environ)
            fputc(',', out);
        print_string(out, *variable);
    }
    fprintf(out, "],\"paths\":{");
    for (char **path = paths; *path; path++) {
        if (path != paths)
            fputc(',', out);
        print_string(out, *path);
        fprintf(out, ":{\"exists\":%s,\"writable\":%s}", access(*path, F_OK) ? "false" : "true",
                access(*path, W_OK) ? "false" : "true");
    }
    fprintf(out, "}}\n");
    return fclose(out) ? 1 : 0;
}

static int linger(void)
{
    int lock = open("lock", O_RDWR | O_CREAT, 0644);
    if (lock < 0 || flock(lock, LOCK_EX)) {
        perror("probe");
        return 1;
    }
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    if (fork() == 0) {
        setsid();
    } else if (fork() == 0) {
        if (fork() != 0)
            _exit(0); /* its child has no parent any more */
        setsid();
    }
    /* Every one of them holds the lock from here on. */
    for (int seconds = 0; seconds < 600; seconds++)
        sleep(1);
    return 0;
}

int main(int count, char **words)
{
    if (count > 1 && !strcmp(words[1], "look"))
        return look(words + 2);
    if (count > 1 && !strcmp(words[1], "linger"))
        return linger();
    if (count > 1 && !strcmp(words[1], "fatal")) {
        fputs("FATAL:   container creation failed: this is only a job that says so\n", stderr);
        return 255;
    }
    fputs("usage: probe look PATH... | linger | fatal\n", stderr);
    return 2;
}
