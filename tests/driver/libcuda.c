/* A stand-in for NVIDIA's driver: the functions that the launcher calls, over memory of the host. Kernels do not run; launches
 * are written down, as is every other call, in the file STANDIN_LOG. Variables say what it pretends:
 *
 * STANDIN_DEVICES, STANDIN_VERSION, STANDIN_CAPABILITY (90 is 9.0), STANDIN_POOLS, STANDIN_MEMORY (bytes of the device);
 * STANDIN_FAIL=NAME:CODE:FIRST:LAST makes calls FIRST to LAST of a function fail, counted from 1;
 * STANDIN_LATE=CODE is a kernel's fault: the first wait after a launch reports it, and every call after that.
 *
 * An image of the tests' own is a fatbin's header and lines `NAME THREADS SHARED PARAMS X Y Z BYTES`, the last being the size of
 * the kernel's record (0: it has none). Any other image has every kernel, of 128 threads and 8 bytes of parameters. */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
enum { OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, INVALID_IMAGE = 200, NOT_FOUND = 500 };

/* Held during each call: threads may call at once. */
static pthread_mutex_t calls = PTHREAD_MUTEX_INITIALIZER;

static void end_call(int *unused) { pthread_mutex_unlock(&calls); }

#define ONE_CALL                                                                                                                  \
    __attribute__((cleanup(end_call))) int one_call = pthread_mutex_lock(&calls);                                                 \
    (void)one_call

/* What is alive. */
static struct {
    long streams, events, modules, allocations, pinned, graphs, programs, contexts;
} live;
static size_t used;
static int launched, faulty;

static long number(const char *variable, long otherwise) {
    const char *value = getenv(variable);
    return value && *value ? atol(value) : otherwise;
}

static void note(const char *text) {
    const char *file = getenv("STANDIN_LOG");
    FILE *log = file ? fopen(file, "a") : NULL;
    if (log) {
        fprintf(log, "%s\n", text);
        fclose(log);
    }
}

/* Whether this call of `name` fails, and with what. */
static Result enter(const char *name, int waits) {
    static struct { const char *name; long calls; } counts[64];
    note(name);
    long calls = 0;
    for (int i = 0; i < 64; i++) {
        if (!counts[i].name) counts[i].name = name;
        if (strcmp(counts[i].name, name) == 0) {
            calls = ++counts[i].calls;
            break;
        }
    }
    const char *fail = getenv("STANDIN_FAIL");
    char wanted[64];
    int code = 0;
    long first = 0, last = 0;
    if (fail && sscanf(fail, "%63[^:]:%d:%ld:%ld", wanted, &code, &first, &last) == 4 && strcmp(wanted, name) == 0 &&
        first <= calls && calls <= last)
        return code;
    if (waits && launched && number("STANDIN_LATE", 0)) faulty = 1;
    return faulty ? (Result)number("STANDIN_LATE", 0) : 0;
}

#define CALL(name, parameters, body)                                                                                              \
    Result name parameters {                                                                                                      \
        ONE_CALL;                                                                                                                 \
        Result failed = enter(#name, strstr(#name, "Synchronize") != NULL);                                                       \
        if (failed) return failed;                                                                                                \
        body;                                                                                                                     \
        return 0;                                                                                                                 \
    }

/* Devices and contexts. */
CALL(cuInit, (unsigned flags), if (number("STANDIN_DEVICES", 1) == 0) return NO_DEVICE)
CALL(cuDriverGetVersion, (int *version), *version = (int)number("STANDIN_VERSION", 13000))
CALL(cuDeviceGetCount, (int *count), *count = (int)number("STANDIN_DEVICES", 1))
CALL(cuDeviceGet, (int *device, int ordinal), *device = ordinal)
CALL(cuDeviceGetName, (char *name, int len, int device), snprintf(name, (size_t)len, "Stand-in"))
CALL(cuDeviceGetMemPool, (void **pool, int device), *pool = (void *)1)
CALL(cuDevicePrimaryCtxRetain, (void **context, int device), (*context = (void *)2, live.contexts++))
CALL(cuCtxSetCurrent, (void *context), )

Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    ONE_CALL;
    Result failed = enter("cuDeviceGetAttribute", 0);
    if (failed) return failed;
    long capability = number("STANDIN_CAPABILITY", 90);
    switch (attribute) {
    case 75: *value = (int)(capability / 10); return 0;
    case 76: *value = (int)(capability % 10); return 0;
    case 16: *value = 4; return 0;                                  /* multiprocessors */
    case 97: *value = 100 << 10; return 0;                          /* bytes of shared memory */
    case 115: *value = (int)number("STANDIN_POOLS", 1); return 0;
    default: return 1;
    }
}

Result cuDevicePrimaryCtxRelease_v2(int device) {
    ONE_CALL;
    char text[256];
    live.contexts--;
    snprintf(text, sizeof text, "left: %ld streams, %ld events, %ld modules, %ld allocations, %ld pinned, %ld graphs, %ld programs, %ld contexts",
             live.streams, live.events, live.modules, live.allocations, live.pinned, live.graphs, live.programs, live.contexts);
    note(text);
    return enter("cuDevicePrimaryCtxRelease_v2", 0);
}

/* Memory: each allocation is preceded by its size. */
enum { HEAD = 256 };

static Result allocate(uint64_t *addr, size_t bytes) {
    if (bytes > (size_t)number("STANDIN_MEMORY", 1 << 30) - used) return OUT_OF_MEMORY;
    char *start = aligned_alloc(HEAD, HEAD + (bytes + HEAD - 1) / HEAD * HEAD);
    *(size_t *)start = bytes;
    memset(start + HEAD, 0xcd, bytes);
    used += bytes;
    live.allocations++;
    *addr = (uint64_t)(start + HEAD);
    return 0;
}

static void release(uint64_t addr) {
    char *start = (char *)addr - HEAD;
    used -= *(size_t *)start;
    live.allocations--;
    free(start);
}

CALL(cuMemGetInfo_v2, (size_t *available, size_t *total),
     (*total = (size_t)number("STANDIN_MEMORY", 1 << 30), *available = *total - used))
CALL(cuMemAlloc_v2, (uint64_t *addr, size_t bytes), return allocate(addr, bytes))
CALL(cuMemAllocAsync, (uint64_t *addr, size_t bytes, void *stream), return allocate(addr, bytes))
CALL(cuMemFree_v2, (uint64_t addr), release(addr))
CALL(cuMemFreeAsync, (uint64_t addr, void *stream), release(addr))
CALL(cuMemHostAlloc, (void **start, size_t bytes, unsigned flags), (*start = malloc(bytes), live.pinned++))
CALL(cuMemFreeHost, (void *start), (free(start), live.pinned--))
CALL(cuMemPoolGetAttribute, (void *pool, int attribute, uint64_t *value), *value = used)
CALL(cuMemPoolSetAttribute, (void *pool, int attribute, uint64_t *value), )
CALL(cuMemPoolTrimTo, (void *pool, size_t keep), )

/* Streams, of which one may record, and events. */
static void *recording;

CALL(cuStreamCreate, (void **stream, unsigned flags), (*stream = malloc(1), live.streams++))
CALL(cuStreamDestroy_v2, (void *stream), (free(stream), live.streams--))
CALL(cuStreamSynchronize, (void *stream), )
CALL(cuStreamWaitEvent, (void *stream, void *event, unsigned flags), )
CALL(cuStreamBeginCapture_v2, (void *stream, int mode), recording = stream)
CALL(cuEventCreate, (void **event, unsigned flags), (*event = malloc(1), live.events++))
CALL(cuEventDestroy_v2, (void *event), (free(event), live.events--))
CALL(cuEventRecord, (void *event, void *stream), )
CALL(cuEventSynchronize, (void *event), )
CALL(cuEventElapsedTime, (float *milliseconds, void *from, void *to), *milliseconds = 0.25f)

Result cuStreamEndCapture(void *stream, void **graph) {
    ONE_CALL;
    recording = NULL;
    Result failed = enter("cuStreamEndCapture", 0);
    *graph = failed ? NULL : malloc(1);
    live.graphs += failed ? 0 : 1;
    return failed;
}

CALL(cuGraphDestroy, (void *graph), (free(graph), live.graphs--))
CALL(cuGraphInstantiateWithFlags, (void **program, void *graph, uint64_t flags), (*program = malloc(1), live.programs++))
CALL(cuGraphExecDestroy, (void *program), (free(program), live.programs--))
CALL(cuGraphLaunch, (void *program, void *stream), launched = 1)

CALL(cuMemcpyHtoDAsync_v2, (uint64_t to, const void *from, size_t bytes, void *stream),
     if (stream != recording) memcpy((void *)to, from, bytes))
CALL(cuMemcpyDtoHAsync_v2, (void *to, uint64_t from, size_t bytes, void *stream), memcpy(to, (void *)from, bytes))
CALL(cuMemcpyDtoDAsync_v2, (uint64_t to, uint64_t from, size_t bytes, void *stream),
     if (stream != recording) memcpy((void *)to, (void *)from, bytes))
CALL(cuMemsetD8Async, (uint64_t to, unsigned char value, size_t bytes, void *stream),
     if (stream != recording) memset((void *)to, value, bytes))

/* Modules. */
typedef struct Kernel {
    char name[128];
    uint32_t record[7];
    size_t bytes;
    struct Kernel *next;
} Kernel;

typedef struct {
    int any;
    Kernel *kernels;
} Module;

static Kernel *add(Module *module, const char *name) {
    Kernel *kernel = calloc(1, sizeof *kernel);
    snprintf(kernel->name, sizeof kernel->name, "%s", name);
    kernel->record[0] = 128;
    kernel->record[2] = 8;
    kernel->record[3] = kernel->record[4] = kernel->record[5] = 1;
    kernel->bytes = sizeof kernel->record;
    kernel->next = module->kernels;
    module->kernels = kernel;
    return kernel;
}

static Kernel *find(Module *module, const char *name) {
    for (Kernel *kernel = module->kernels; kernel; kernel = kernel->next)
        if (strcmp(kernel->name, name) == 0) return kernel;
    return module->any ? add(module, name) : NULL;
}

Result cuModuleLoadData(Module **module, const void *image) {
    ONE_CALL;
    Result failed = enter("cuModuleLoadData", 0);
    if (failed) return failed;
    const char *text = (const char *)image + *(const uint16_t *)((const char *)image + 6);
    *module = calloc(1, sizeof **module);
    live.modules++;
    if (strncmp(text, "STAND-IN\n", 9) != 0) {
        (*module)->any = 1;
        return 0;
    }
    char name[128];
    uint32_t r[7];
    size_t bytes;
    int length;
    for (text += 9; sscanf(text, "%127s %u %u %u %u %u %u %u %zu\n%n", name, r, r + 1, r + 2, r + 3, r + 4, r + 5, r + 6, &bytes, &length) == 9;
         text += length) {
        Kernel *kernel = add(*module, name);
        memcpy(kernel->record, r, sizeof r);
        kernel->bytes = bytes;
    }
    return 0;
}

CALL(cuModuleUnload, (Module *module), (free(module), live.modules--))

Result cuModuleGetFunction(Kernel **function, Module *module, const char *name) {
    ONE_CALL;
    Result failed = enter("cuModuleGetFunction", 0);
    if (failed) return failed;
    *function = find(module, name);
    return *function ? 0 : NOT_FOUND;
}

Result cuModuleGetGlobal_v2(uint64_t *addr, size_t *bytes, Module *module, const char *name) {
    ONE_CALL;
    Result failed = enter("cuModuleGetGlobal_v2", 0);
    if (failed) return failed;
    char kernel[128];
    snprintf(kernel, sizeof kernel, "%s", name);
    char *end = strstr(kernel, "_spec");
    if (end) *end = 0;
    Kernel *found = find(module, kernel);
    if (!found || !found->bytes) return NOT_FOUND;
    *addr = (uint64_t)found->record;
    *bytes = found->bytes;
    return 0;
}

CALL(cuFuncSetAttribute, (Kernel *function, int attribute, int value), )

Result cuLaunchKernel(Kernel *f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                      void *stream, void **parameters, void **extra) {
    ONE_CALL;
    Result failed = enter("cuLaunchKernel", 0);
    if (failed) return failed;
    char text[256];
    snprintf(text, sizeof text, "ran %s on %u %u %u of %u %u %u, %u shared, first word %llx%s", f->name, gx, gy, gz, bx, by, bz, shared,
             *(unsigned long long *)parameters[0], stream == recording ? ", recorded" : "");
    note(text);
    if (stream != recording) launched = 1;
    return 0;
}

/* Errors, which have no part in the log. */
Result cuGetErrorName(Result error, const char **name) {
    static const struct { Result code; const char *name; } names[] = {
        {1, "CUDA_ERROR_INVALID_VALUE"},
        {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {209, "CUDA_ERROR_NO_BINARY_FOR_GPU"},
        {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {700, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {701, "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES"},
        {999, "CUDA_ERROR_UNKNOWN"},
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == error) {
            *name = names[i].name;
            return 0;
        }
    return 1;
}

Result cuGetErrorString(Result error, const char **text) {
    *text = "as the test wishes";
    return error == 803 ? 1 : 0;
}
