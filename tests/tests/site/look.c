// What a job sees of secrets and variables: prints the content of each file that is named, and every variable. With
// `wait` as the first argument it goes on once its directory has a file `go`. It ends with 3, so that its result has
// what it printed.
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

int main(int argc, char **argv) {
  int first = 1;
  if (argc > 1 && strcmp(argv[1], "wait") == 0) {
    first = 2;
    close(open("/work/waits", O_CREAT | O_WRONLY, 0600));
    while (access("/work/go", F_OK) != 0) usleep(10000);
  }
  for (int i = first; i < argc; i++) {
    char text[4096];
    struct stat found;
    FILE *file = fopen(argv[i], "r");
    if (file == NULL || fstat(fileno(file), &found) != 0) {
      printf("%s: none\n", argv[i]);
      continue;
    }
    text[fread(text, 1, sizeof text - 1, file)] = 0;
    printf("%s: %s, %s\n", argv[i], text, access(argv[i], W_OK) == 0 ? "writable" : "read-only");
  }
  for (char **variable = environ; *variable != NULL; variable++) printf("%s\n", *variable);
  return 3;
}
