/* Copies data/big.dat to out/copy.dat, with nothing but the C library. */
#include <stdio.h>
#include <sys/stat.h>

int main(void) {
    static char buffer[65536];
    size_t count;
    FILE *from = fopen("data/big.dat", "rb"), *to;
    if (!from || mkdir("out", 0700)) return 1;
    to = fopen("out/copy.dat", "wb");
    if (!to) return 2;
    while ((count = fread(buffer, 1, sizeof buffer, from)) > 0)
        if (fwrite(buffer, 1, count, to) != count) return 3;
    return fclose(to) ? 4 : 0;
}
