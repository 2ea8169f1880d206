/* Sends a body of 1 GB, 64 KiB at a time. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    static char block[65536];
    long left = 1000L * 1000 * 1000;
    dprintf(1, "Content-Type: application/octet-stream\r\nContent-Length: %ld\r\n\r\n", left);
    while (left > 0) {
        ssize_t n = write(1, block, left < (long)sizeof block ? (size_t)left : sizeof block);
        if (n <= 0)
            return 1;
        left -= n;
    }
    return 0;
}
