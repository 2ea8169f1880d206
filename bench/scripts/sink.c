/* Reads CONTENT_LENGTH bytes and answers with how many came. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

int main(void)
{
    static char block[65536];
    const char *length = getenv("CONTENT_LENGTH");
    long left = length ? atol(length) : 0, came = 0;
    while (came < left) {
        ssize_t n = read(0, block, sizeof block);
        if (n <= 0)
            break;
        came += n;
    }
    return printf("Content-Type: text/plain\r\n\r\n%ld\n", came) > 0 ? 0 : 1;
}
