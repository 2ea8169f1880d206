/* Answers with the pid of the process that runs it: the worker that serves the request. */
#include <stdio.h>
#include <unistd.h>

int main(void)
{
    return printf("Content-Type: text/plain\r\n\r\n%d\n", getppid()) > 0 ? 0 : 1;
}
