/* Scores rows of numbers with an ensemble of decision trees.

The answers are those of LightGBM's own predictor, to the last bit: the same comparisons, and sums
in the same order (where they are added in float32, those of XGBoost). What differs is where things
are. A node takes 16 bytes and its children are neighbours, so that an ensemble stays in the cache
of a core from one request to the next, and several trees are descended at once, so that the core
does not wait for one memory access after the other, nor guess where each tree ends.

Callers keep indices in range: `forest.py` makes the arrays, and checks what it makes them of.

Reference: LightGBM's documentation of missing values and categorical features, and the predictor in
its `tree.h` (`NumericalDecision`, `CategoricalDecision`). */

#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>

enum { LEAF = 1, DEFAULT_LEFT = 2, CATEGORICAL = 4, ZERO_MISSING = 8, NAN_MISSING = 16, FEATURE = 5 };
enum { RAW, SIGMOID, EXPONENTIAL, SOFTMAX };
enum { AT_ONCE = 8, LITTLE = 256 };

typedef struct {
    double value; /* the threshold; of a leaf its output; of a categorical split where its set is */
    int32_t kind; /* what the constants above say, and from bit FEATURE on which number is asked */
    int32_t left; /* the right child is the next one; a leaf is its own */
} Node;

typedef struct {
    const double *given; /* the row as it came */
    double *plain;       /* with 0 for NaN, and for what counts as 0 */
    int32_t *missing;    /* for which kinds of node a number is missing */
} Row;

static void look_at(Row *row, Py_ssize_t width, double almost_zero)
{
    for (Py_ssize_t i = 0; i < width; i++) {
        double value = row->given[i];
        int is_nan = value != value;
        int is_zero = is_nan | (value >= -almost_zero && value <= almost_zero);
        row->plain[i] = is_zero ? 0.0 : value;
        row->missing[i] = (is_nan ? NAN_MISSING : 0) | (is_zero ? ZERO_MISSING : 0);
    }
}

/* Whether a set, which begins with its length in words, has a bit for the category; NaN has none. */
static int is_in(const uint32_t *set, double value)
{
    if (!(value > -1.0 && value < 2147483648.0))
        return 0;
    uint32_t category = (uint32_t)value;
    return category / 32 < set[0] && (set[1 + category / 32] >> (category % 32) & 1);
}

static inline void descend(const Node *nodes, const uint32_t *sets, const Row *row,
                           const int32_t *roots, int count, double *found)
{
    int32_t at[AT_ONCE];
    int is_under_way;
    for (int tree = 0; tree < count; tree++)
        at[tree] = roots[tree];
    do {
        is_under_way = 0;
        for (int tree = 0; tree < count; tree++) {
            const Node *node = nodes + at[tree];
            int32_t kind = node->kind, feature = kind >> FEATURE;
            int left = row->plain[feature] <= node->value;
            left = row->missing[feature] & kind ? kind & DEFAULT_LEFT : left;
            if (kind & CATEGORICAL)
                left = is_in(sets + (int64_t)node->value, row->given[feature]);
            at[tree] = node->left + !(left | (kind & LEAF));
            is_under_way |= ~kind & LEAF;
        }
    } while (is_under_way);
    for (int tree = 0; tree < count; tree++)
        found[tree] = nodes[at[tree]].value;
}

static void convert(double *outputs, Py_ssize_t count, int how, double factor)
{
    double most = outputs[0], sum = 0.0;
    switch (how) {
    case SIGMOID:
        for (Py_ssize_t k = 0; k < count; k++)
            outputs[k] = 1.0 / (1.0 + exp(-factor * outputs[k]));
        return;
    case EXPONENTIAL:
        for (Py_ssize_t k = 0; k < count; k++)
            outputs[k] = exp(outputs[k]);
        return;
    case SOFTMAX:
        for (Py_ssize_t k = 1; k < count; k++)
            most = outputs[k] > most ? outputs[k] : most;
        for (Py_ssize_t k = 0; k < count; k++)
            sum += outputs[k] = exp(outputs[k] - most);
        for (Py_ssize_t k = 0; k < count; k++)
            outputs[k] /= sum;
    }
}

PyDoc_STRVAR(score_doc, "score(nodes, roots, sets, rows, outputs, width, classes, how, factor, divisor, "
                        "almost_zero, adds_float32)");

static PyObject *score(PyObject *Py_UNUSED(module), PyObject *arguments)
{
    Py_buffer nodes, roots, sets, rows, outputs;
    Py_ssize_t width, classes;
    int how, adds_float32;
    double factor, divisor, almost_zero;
    if (!PyArg_ParseTuple(arguments, "y*y*y*y*w*nnidddp:score", &nodes, &roots, &sets, &rows, &outputs,
                          &width, &classes, &how, &factor, &divisor, &almost_zero, &adds_float32))
        return NULL;
    Py_ssize_t count = rows.len / (Py_ssize_t)sizeof(double) / width;
    int trees = (int)(roots.len / (Py_ssize_t)sizeof(int32_t));
    double few[LITTLE], *many = NULL;
    int32_t few_missing[LITTLE], *many_missing = NULL;
    if (width > LITTLE) {
        many = PyMem_Malloc(width * sizeof(double));
        many_missing = PyMem_Malloc(width * sizeof(int32_t));
    }
    if (width > LITTLE && (many == NULL || many_missing == NULL))
        PyErr_NoMemory();
    else {
        PyThreadState *others = count > 1 ? PyEval_SaveThread() : NULL;
        Row row = {NULL, many ? many : few, many ? many_missing : few_missing};
        for (Py_ssize_t number = 0; number < count; number++) {
            row.given = (const double *)rows.buf + number * width;
            double *output = (double *)outputs.buf + number * classes, found[AT_ONCE];
            look_at(&row, width, almost_zero);
            for (Py_ssize_t k = 0; k < classes; k++)
                output[k] = 0.0;
            Py_ssize_t k = 0;
            for (int first = 0; first < trees; first += AT_ONCE) {
                const int32_t *some = (const int32_t *)roots.buf + first;
                int rest = trees - first < AT_ONCE ? trees - first : AT_ONCE;
                if (rest == AT_ONCE)
                    descend(nodes.buf, sets.buf, &row, some, AT_ONCE, found);
                else
                    descend(nodes.buf, sets.buf, &row, some, rest, found);
                for (int tree = 0; tree < rest; tree++, k = k + 1 == classes ? 0 : k + 1) {
                    double sum = output[k] + found[tree];
                    output[k] = adds_float32 ? (float)sum : sum;
                }
            }
            if (divisor != 1.0)
                for (k = 0; k < classes; k++)
                    output[k] /= divisor;
            convert(output, classes, how, factor);
        }
        if (others != NULL)
            PyEval_RestoreThread(others);
    }
    PyMem_Free(many);
    PyMem_Free(many_missing);
    PyBuffer_Release(&nodes);
    PyBuffer_Release(&roots);
    PyBuffer_Release(&sets);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&outputs);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {{"score", score, METH_VARARGS, score_doc}, {NULL, NULL, 0, NULL}};
static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_forest", NULL, 0, methods,
                                        NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__forest(void)
{
    return PyModuleDef_Init(&definition);
}
