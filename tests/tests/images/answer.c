/* A program in an image: it answers with what stands in a file of the image, read at its end, which `wait` puts off
   until there is a file `go` in the job directory. */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv) {
    char version[64] = "";
    FILE *output;
    FILE *input;
    if (access("/work/wait", F_OK) == 0 || (argc > 1 && strcmp(argv[1], "wait") == 0)) {
        output = fopen("/work/waits", "w");
        fclose(output);
        while (access("/work/go", F_OK) != 0) usleep(10000);
    }
    input = fopen("/etc/version", "r");
    if (input == NULL || fgets(version, sizeof version, input) == NULL) return 1;
    fclose(input);
    output = fopen("/work/output.json", "w");
    fprintf(output, "\"%s\"\n", version);
    return fclose(output);
}
