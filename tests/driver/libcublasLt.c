/* A stand-in for cuBLASLt: descriptions are counted and written down in STANDIN_LOG, products are not computed. With
 * STANDIN_NO_ALGORITHM=1 its heuristics find none; with STANDIN_BLAS_FAIL=CODE its products fail. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned Status;
typedef struct {
    uint64_t words[8];
} Algorithm;
typedef struct {
    Algorithm algorithm;
    size_t workspace;
    Status state;
    float waves;
    int reserved[4];
} Heuristic;
typedef struct {
    unsigned type;
    uint64_t rows, cols;
    int64_t ld;
} Matrix;
typedef struct {
    uint32_t transposed[2];
} Multiply;

static long live;

static void note(const char *text) {
    const char *file = getenv("STANDIN_LOG");
    FILE *log = file ? fopen(file, "a") : NULL;
    if (log) {
        fprintf(log, "%s\n", text);
        fclose(log);
    }
}

static Status give(void *object) {
    free(object);
    live--;
    return 0;
}

static void *take(size_t bytes) {
    live++;
    return calloc(1, bytes);
}

Status cublasLtCreate(void **handle) { return *handle = take(1), 0; }
Status cublasLtDestroy(void *handle) {
    char text[64];
    give(handle);
    snprintf(text, sizeof text, "left: %ld objects of cuBLASLt", live);
    note(text);
    return 0;
}
const char *cublasLtGetStatusName(Status status) { return status == 13 ? "CUBLAS_STATUS_EXECUTION_FAILED" : "another status"; }

Status cublasLtMatmulDescCreate(Multiply **made, int compute, int scale) { return *made = take(sizeof **made), 0; }
Status cublasLtMatmulDescDestroy(Multiply *made) { return give(made); }
Status cublasLtMatmulDescSetAttribute(Multiply *made, unsigned attribute, const void *value, size_t bytes) {
    /* CUBLASLT_MATMUL_DESC_TRANSA and _TRANSB */
    if ((attribute != 3 && attribute != 4) || bytes != 4) return 7;
    memcpy(&made->transposed[attribute - 3], value, bytes);
    return 0;
}
Status cublasLtMatrixLayoutCreate(Matrix **made, unsigned type, uint64_t rows, uint64_t cols, int64_t ld) {
    *made = take(sizeof **made);
    **made = (Matrix){type, rows, cols, ld};
    return 0;
}
Status cublasLtMatrixLayoutDestroy(Matrix *made) { return give(made); }
Status cublasLtMatmulPreferenceCreate(void **made) { return *made = take(1), 0; }
Status cublasLtMatmulPreferenceDestroy(void *made) { return give(made); }
Status cublasLtMatmulPreferenceSetAttribute(void *made, unsigned attribute, const void *value, size_t bytes) { return 0; }

/* As the library does, refuses what does not fit together: column-major, op(a) [m, k], op(b) [k, n], c [m, n]. */
static Status check(const Multiply *x, const Matrix *a, const Matrix *b, const Matrix *c) {
    uint64_t m = x->transposed[0] ? a->cols : a->rows, k = x->transposed[0] ? a->rows : a->cols;
    uint64_t k2 = x->transposed[1] ? b->cols : b->rows, n = x->transposed[1] ? b->rows : b->cols;
    int fits = m == c->rows && n == c->cols && k == k2;
    return fits && a->ld >= (int64_t)a->rows && b->ld >= (int64_t)b->rows && c->ld >= (int64_t)c->rows ? 0 : 7;
}

Status cublasLtMatmulAlgoGetHeuristic(void *handle, Multiply *x, Matrix *a, Matrix *b, Matrix *c, Matrix *d, void *limits, int wanted,
                                      Heuristic *found, int *count) {
    note("cublasLtMatmulAlgoGetHeuristic");
    if (getenv("STANDIN_NO_ALGORITHM")) return 15;
    *count = 1;
    *found = (Heuristic){.workspace = 1024};
    return check(x, a, b, c);
}

Status cublasLtMatmul(void *handle, Multiply *x, const float *alpha, const void *at_a, Matrix *a, const void *at_b, Matrix *b,
                      const float *beta, const void *at_c, Matrix *c, void *at_d, Matrix *d, const Algorithm *algorithm,
                      void *workspace, size_t bytes, void *stream) {
    const char *fails = getenv("STANDIN_BLAS_FAIL");
    char text[256];
    if (fails) return (Status)atoi(fails);
    if (at_c != at_d || c != d || !workspace || !stream) return 7;
    snprintf(text, sizeof text, "product %lux%lu%s by %lux%lu%s to %lux%lu, type %u, %g and %g", a->rows, a->cols,
             x->transposed[0] ? "T" : "", b->rows, b->cols, x->transposed[1] ? "T" : "", c->rows, c->cols, c->type, *alpha, *beta);
    note(text);
    return check(x, a, b, c);
}
