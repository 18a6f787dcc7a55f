/* The job of the crash tests: it notes its beginning and its end where no program of the project can reach.
 *
 *   ledger DIR NODE serve   is an instance of a service: it appends its job, its process id and NODE to DIR/instances,
 *                       says its port in address.json, tells each who connects whose instance it is, and keeps the
 *                       connection until the other side closes it
 *
 *   ledger DIR [NODE]   reads {"number": N, "sleep_ms": M, "gate": 0 or 1, "fails": 0 or 1, "files": 0 or 1} out of
 *                       input.json, appends a line to DIR/N, waits for the file DIR/gate if it is told to, sleeps,
 *                       writes output.json, and appends another line; the first run of a job that comes to its end
 *                       fails there, if it is told to, and writes no output.json
 *
 * As a task of a workflow it has {"argv": ["ledger", "N", "M"]}, and makes a file of the name N in the workflow's
 * directory.
 *
 * With files, it makes out/data of in/data and a line with its number, its attempt and the time of its begin, and
 * out/line of the line alone. A run that fails spoils in/data as well, which is not to be what the next one finds.
 *
 * With {"asks": 1} it connects to the instance in services/counter.json when it begins, and stays connected; without the
 * instance it cannot do anything, and fails.
 *
 * NODE is a number; or `allocation`, and then a number is made of the name of the allocation that the run is in: it has
 * a parent that is called `PROGRAM allocation FOLDER`.
 *
 * A line is a word, the time in nanoseconds, the process id, the attempt that meta.json tells (0: none) and the number
 * of the node (0: none). It is one write to a file that is opened for appending, so lines of two runs never mix.
 *
 *   begin    it begins, and no other run of the job is there
 *   beside   it begins, and another one is still there: each run holds a lock on the file, which goes with its process
 *   end      it came to its end
 *   parked   it came to its end, and goes on after two others: {"parks": N} in the first round of a job, whose children
 *            have the numbers that are N and twice N higher; in a further round they must have left their records
 *   failed   it came to its end, and fails
 *   left     its instance was not there, or is not there any more, and it fails for that
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* Longer than any test: a gate that is never opened must not leave a process behind for ever. */
#define GATE_POLLS_MAX 60000

/* The exit code of a run that is told to fail, and of one that was left by its instance. */
#define FAILED 3
#define LEFT 4

/* How many connections an instance keeps at most: more than it has users, and somebody looks at it as well. */
#define CONNECTIONS_MAX 64

static char text[65536];

/* The whole file, or the empty string. */
static const char *content(const char *path)
{
    FILE *in = fopen(path, "r");
    size_t length = 0;
    if (in) {
        length = fread(text, 1, sizeof text - 1, in);
        fclose(in);
    }
    text[length] = '\0';
    return text;
}

/* The whole number in a field of JSON that has only plain names and numbers there; 0 when there is none. */
static long long number_in(const char *json, const char *name)
{
    char quoted[32];
    const char *at;
    snprintf(quoted, sizeof quoted, "\"%s\"", name);
    at = strstr(json, quoted);
    at = at ? strchr(at, ':') : NULL;
    return at ? strtoll(at + 1, NULL, 10) : 0;
}

/* The word at this place, from 1, behind "argv" in a list of plain words; 0 when there is none, or it is no number. */
static long long word_in(const char *json, int place)
{
    const char *at = strstr(json, "\"argv\"");
    at = at ? strchr(at, '[') : NULL;
    while (at && place-- > 0)
        at = strchr(at + 1, ',');
    at = at ? strchr(at, '"') : NULL;
    return at ? strtoll(at + 1, NULL, 10) : 0;
}

static long long nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (long long)now.tv_sec * 1000000000LL + now.tv_nsec;
}

static void rest(long long milliseconds)
{
    struct timespec left = { (time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000L };
    while (nanosleep(&left, &left) != 0)
        ;
}

static int note(int ledger, const char *what, long long now, long long attempt, long long node)
{
    char line[128];
    int length = snprintf(line, sizeof line, "%s %lld %d %lld %lld\n", what, now, (int)getpid(), attempt, node);
    return write(ledger, line, (size_t)length) == length;
}

/* All of one file after what another one has so far; 0 when that went well. */
static int append(FILE *out, const char *path)
{
    FILE *in = fopen(path, "r");
    size_t length;
    int failed;
    if (!in)
        return 1;
    while ((length = fread(text, 1, sizeof text, in)) > 0)
        if (fwrite(text, 1, length, out) != length)
            break;
    failed = ferror(in) || ferror(out) || length > 0;
    fclose(in);
    return failed;
}

/* The files that the job leaves; 0 when that went well. */
static int leave(long long number, long long attempt, long long begun)
{
    static const char *const paths[] = { "out/data", "out/line" };
    int failed = 0;
    /* An earlier run may have made it. */
    mkdir("out", 0755);
    for (int which = 0; which < 2; which++) {
        FILE *out = fopen(paths[which], "w");
        if (!out)
            return 1;
        failed |= which == 0 && append(out, "in/data");
        failed |= fprintf(out, "%lld %lld %lld\n", number, attempt, begun) < 0;
        failed |= fclose(out) != 0;
    }
    return failed;
}

/* Leaves two jobs behind that go before this one goes on, the second of which fails once; 0 when that went well. */
static int park(long long number, long long stride, long long sleep_ms)
{
    static const char job[] = "{\"task\":\"ledger\",\"retries\":%d,\"input\":"
                              "{\"number\":%lld,\"sleep_ms\":%lld,\"fails\":%d}}";
    FILE *out = fopen("continue.json", "w");
    int failed = !out || fputs("{\"run\":[", out) < 0;
    for (int child = 1; !failed && child <= 2; child++) {
        failed |= fprintf(out, job, child - 1, number + child * stride, sleep_ms, child - 1) < 0;
        failed |= fputs(child == 1 ? "," : "]}\n", out) < 0;
    }
    return failed | (out && fclose(out) != 0);
}

/* The file that a task of a workflow is to make; 0 when that went well, or this is none. */
static int make(long long number)
{
    const char *folder = getenv("HPC_QUEUE_WORKFLOW_DIR");
    char path[4096];
    FILE *out;
    if (!folder)
        return 0;
    snprintf(path, sizeof path, "%s/%lld", folder, number);
    out = fopen(path, "w");
    return !out || fclose(out) != 0;
}

/* Is an instance of a service until it is ended. Returns if it cannot be one. */
static int serve(const char *folder, const char *node)
{
    static struct pollfd all[1 + CONNECTIONS_MAX];
    struct sockaddr_in address = { .sin_family = AF_INET };
    socklen_t size = sizeof address;
    const char *id = getenv("JOB_ID");
    char line[256], path[4096];
    int length, notes, count = 1;
    FILE *out = fopen("new.json", "w");
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    all[0].fd = socket(AF_INET, SOCK_STREAM, 0);
    all[0].events = POLLIN;
    if (!id || !out || all[0].fd < 0 || bind(all[0].fd, (struct sockaddr *)&address, size) != 0
        || listen(all[0].fd, CONNECTIONS_MAX) != 0 || getsockname(all[0].fd, (struct sockaddr *)&address, &size) != 0)
        return 1;
    snprintf(path, sizeof path, "%s/instances", folder);
    notes = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    length = snprintf(line, sizeof line, "%s %d %s\n", id, (int)getpid(), node);
    if (notes < 0 || write(notes, line, (size_t)length) != length)
        return 1;
    if (fprintf(out, "{\"port\":%d}", (int)ntohs(address.sin_port)) < 0 || fclose(out) != 0
        || rename("new.json", "address.json") != 0)
        return 1;
    length = snprintf(line, sizeof line, "%s\n", id);
    for (;;) {
        if (poll(all, (nfds_t)count, -1) < 0)
            continue;
        for (int at = count - 1; at > 0; at--)
            if (all[at].revents && read(all[at].fd, text, sizeof text) <= 0) {
                close(all[at].fd);
                all[at] = all[--count];
            }
        if (all[0].revents) {
            struct pollfd next = { accept(all[0].fd, NULL, NULL), POLLIN, 0 };
            if (next.fd >= 0 && count <= CONNECTIONS_MAX && send(next.fd, line, (size_t)length, MSG_NOSIGNAL) == length)
                all[count++] = next;
            else if (next.fd >= 0)
                close(next.fd);
        }
    }
}

/* A connection to the instance that the job was given, once that has said that it is it; -1 if there is none. */
static int meet(void)
{
    struct sockaddr_in address = { .sin_family = AF_INET };
    char said[256] = "\"";
    const char *json = content("services/counter.json"), *at = strstr(json, "127.0.0.1:");
    int instance = socket(AF_INET, SOCK_STREAM, 0);
    size_t length = 1;
    ssize_t more;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((unsigned short)(at ? strtol(strchr(at, ':') + 1, NULL, 10) : 0));
    if (!at || instance < 0 || connect(instance, (struct sockaddr *)&address, sizeof address) != 0)
        return -1;
    while (said[length - 1] != '\n' && length < sizeof said - 1
           && (more = read(instance, said + length, sizeof said - 1 - length)) > 0)
        length += (size_t)more;
    if (said[length - 1] != '\n')
        return -1;
    said[length - 1] = '"';
    return strstr(json, said) ? instance : -1;
}

/* Is the other side of a connection gone? */
static int is_gone(int instance)
{
    char byte;
    return recv(instance, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 || (errno != EAGAIN && errno != EWOULDBLOCK);
}

/* What stands for an allocation whose keeper had died before it could be asked whose it is. No name has this number. */
#define ORPHAN (1LL << 31)

/* The number of the allocation that this runs in, by its name (FNV-1a). */
static long long allocation(void)
{
    char path[64];
    for (long parent = getppid(), level = 0; parent > 1 && level < 16; level++) {
        const char *word = text, *name;
        size_t length;
        FILE *in;
        snprintf(path, sizeof path, "/proc/%ld/cmdline", parent);
        in = fopen(path, "r");
        length = in ? fread(text, 1, sizeof text - 1, in) : 0;
        if (in)
            fclose(in);
        text[length] = '\0';
        word += strlen(word) + 1;
        if (word < text + length && strcmp(word, "allocation") == 0 && (word += strlen(word) + 1) < text + length) {
            unsigned int hash = 2166136261u;
            name = strrchr(word, '/');
            for (name = name ? name + 1 : word; *name; name++)
                hash = (hash ^ (unsigned char)*name) * 16777619u;
            return hash & 0x7fffffff;
        }
        snprintf(path, sizeof path, "/proc/%ld/stat", parent);
        /* The name of a program is in parentheses; behind it are its state and its parent. */
        name = strrchr(content(path), ')');
        parent = name && strlen(name) > 4 ? strtol(name + 4, NULL, 10) : 0;
    }
    return ORPHAN;
}

int main(int count, char **words)
{
    char path[4096];
    long long number, sleep_ms, gate, fails, files, parks, asks, attempt, node, begun;
    const char *round = getenv("HPC_QUEUE_ROUND");
    int ledger, instance = -1;
    FILE *out;
    const char *begin;
    if (count == 4 && strcmp(words[3], "serve") == 0) {
        serve(words[1], words[2]);
        perror("it cannot be an instance");
        return 1;
    }
    if (count != 2 && count != 3) {
        fputs("usage: ledger DIR [NODE [serve]]\n", stderr);
        return 2;
    }
    content("input.json");
    number = number_in(text, "number");
    sleep_ms = number_in(text, "sleep_ms");
    gate = number_in(text, "gate");
    fails = number_in(text, "fails");
    files = number_in(text, "files");
    parks = number_in(text, "parks");
    asks = number_in(text, "asks");
    if (strstr(text, "\"argv\"")) {
        number = word_in(text, 1);
        sleep_ms = word_in(text, 2);
    }
    attempt = number_in(content("meta.json"), "attempt");
    node = count == 3 ? strtoll(words[2], NULL, 10) : 0;
    if (count == 3 && strcmp(words[2], "allocation") == 0)
        node = allocation();

    snprintf(path, sizeof path, "%s/%lld", words[1], number);
    ledger = open(path, O_WRONLY | O_APPEND | O_CREAT, 0644);
    begin = ledger < 0 || flock(ledger, LOCK_EX | LOCK_NB) == 0 ? "begin" : "beside";
    fails = fails && strstr(content(path), "failed ") == NULL;
    begun = nanoseconds();
    if (ledger < 0 || !note(ledger, begin, begun, attempt, node)) {
        perror(path);
        return 1;
    }
    if (asks && (instance = meet()) < 0) {
        fputs("the instance of its service is not there\n", stderr);
        return note(ledger, "left", nanoseconds(), attempt, node) ? LEFT : 1;
    }
    if (gate) {
        snprintf(path, sizeof path, "%s/gate", words[1]);
        for (int polls = 0; access(path, F_OK) != 0 && polls < GATE_POLLS_MAX; polls++)
            rest(20);
    }
    rest(sleep_ms);
    if (asks && is_gone(instance)) {
        fputs("the instance of its service is gone\n", stderr);
        return note(ledger, "left", nanoseconds(), attempt, node) ? LEFT : 1;
    }
    if (files && leave(number, attempt, begun) != 0) {
        perror("out");
        return 1;
    }
    if (fails && files && truncate("in/data", 1) != 0)
        perror("in/data");
    if (fails)
        return note(ledger, "failed", nanoseconds(), attempt, node) ? FAILED : 1;
    if (parks && (!round || strcmp(round, "1") == 0)) {
        if (park(number, parks, sleep_ms) != 0) {
            perror("continue.json");
            return 1;
        }
        return note(ledger, "parked", nanoseconds(), attempt, node) ? 0 : 1;
    }
    if (parks && (access("children/1.json", F_OK) != 0 || access("children/2.json", F_OK) != 0)) {
        fputs("a child has left no record\n", stderr);
        return 1;
    }
    if (make(number) != 0) {
        perror("the file of the workflow");
        return 1;
    }
    /* The time makes the outputs of two runs differ. */
    out = fopen("output.json", "w");
    if (!out || fprintf(out, "{\"number\":%lld,\"begun\":%lld}\n", number, begun) < 0 || fclose(out) != 0) {
        perror("output.json");
        return 1;
    }
    return note(ledger, "end", nanoseconds(), attempt, node) ? 0 : 1;
}
