// Loaded into a process under test (LD_PRELOAD): calls that write below a directory fail with the error that a file
// names, as on a disk that fails or a file system that was remounted read-only under open files. Neither can be had
// from mount alone: it refuses to remount what is open for writing.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static int error_of(const char *path) {
    const char *below = getenv("SPILLWAY_BAD_DISK"), *says = getenv("SPILLWAY_BAD_DISK_ERROR");
    if (!below || !says || !strstr(path, below)) return 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, says, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return 0;
    char text[16] = {0};
    long got = syscall(SYS_read, fd, text, sizeof text - 1);
    syscall(SYS_close, fd);
    return got > 0 ? atoi(text) : 0;
}

// A device that fails shows it where data is written; names are changed in memory. A read-only file system refuses both.
static int error_of_path(const char *path) {
    char whole[8192] = "";
    if (path[0] != '/' && getcwd(whole, 4000)) strcat(whole, "/");
    strncat(whole, path, 4000);
    int error = error_of(whole);
    return error == EIO ? 0 : error;
}

static int error_of_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return error_of(path);
}

#define FAIL_IF(error)          \
    do {                        \
        int failed = (error);   \
        if (failed) {           \
            errno = failed;     \
            return -1;          \
        }                       \
    } while (0)
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
// A function whose first argument is a descriptor, or a path.
#define BY_FD(type, name, parameters, ...) \
    type name parameters {                 \
        FAIL_IF(error_of_fd(fd));          \
        return NEXT(name)(__VA_ARGS__);    \
    }
#define BY_PATH(name, parameters, ...)  \
    int name parameters {               \
        FAIL_IF(error_of_path(path));   \
        return NEXT(name)(__VA_ARGS__); \
    }

BY_FD(ssize_t, write, (int fd, const void *from, size_t n), fd, from, n)
BY_FD(ssize_t, pwrite, (int fd, const void *from, size_t n, off_t at), fd, from, n, at)
BY_FD(ssize_t, pwrite64, (int fd, const void *from, size_t n, off64_t at), fd, from, n, at)
BY_FD(int, fsync, (int fd), fd)
BY_FD(int, fdatasync, (int fd), fd)
BY_FD(int, ftruncate, (int fd, off_t length), fd, length)
BY_FD(int, ftruncate64, (int fd, off64_t length), fd, length)
BY_FD(int, fallocate, (int fd, int mode, off_t at, off_t n), fd, mode, at, n)
BY_FD(int, fallocate64, (int fd, int mode, off64_t at, off64_t n), fd, mode, at, n)
BY_FD(int, sync_file_range, (int fd, off64_t at, off64_t n, unsigned flags), fd, at, n, flags)
BY_PATH(rename, (const char *path, const char *to), path, to)
BY_PATH(link, (const char *path, const char *to), path, to)
BY_PATH(unlink, (const char *path), path)
BY_PATH(mkdir, (const char *path, mode_t mode), path, mode)

// The fourth argument is there only with O_CREAT; passing on what the register holds otherwise does no harm.
#define OPEN(name)                                                  \
    int name(const char *path, int flags, ...) {                    \
        va_list more;                                               \
        va_start(more, flags);                                      \
        mode_t mode = va_arg(more, mode_t);                         \
        va_end(more);                                               \
        if (flags & (O_WRONLY | O_RDWR)) FAIL_IF(error_of_path(path));   \
        return NEXT(name)(path, flags, mode);                       \
    }
OPEN(open)
OPEN(open64)
