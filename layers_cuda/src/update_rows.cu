// The assignments of an update on some rows of its variables; see Kernels.update_rows. One thread an element.
//
// LABEL         the element type of the index
// VARIABLES(X)  X(name, type) for each variable: tables of one shape
// INPUTS(X)     X(name, type, wide): one row an entry (wide = 1), or one number
// BODY          as in update.cu
#define LANES 1
#define COLUMNS 0
#include "common.cuh"
#include "classes.cuh"
#include "functions.cuh"

#define IN_PARAMETER(name, type, wide) const type *in_##name,
#define IN_LOAD(name, type, wide) R v_##name = to<R>(in_##name[wide ? i : 0]);
#define VAR_PARAMETER(name, type) type *var_##name,
#define VAR_LOAD(name, type) R v_##name = to<R>(var_##name[position]);
#define VAR_STORE(name, type) var_##name[position] = to<type>(v_##name);

// count: elements of all entries; rows, width: of the tables.
extern "C" __global__ void update_rows(const LABEL *__restrict__ index, INPUTS(IN_PARAMETER) VARIABLES(VAR_PARAMETER)
                                       Fault *fault, const I count, const I rows, const I width) {
  EACH(i, count) {
    const I e = quotient(i, width), c = i - e * width;
    const long long row = whole(index[e]);
    if (row >= (long long)rows && c == 0) report(fault, (long long)e, (float)index[e]);
    if (row < 0 || row >= (long long)rows) continue;
    const I position = (I)row * width + c;
    VARIABLES(VAR_LOAD)
    INPUTS(IN_LOAD)
    BODY
    VARIABLES(VAR_STORE)
  }
}
