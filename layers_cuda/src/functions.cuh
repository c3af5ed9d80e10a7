// The functions of netrun.expression.FUNCTIONS that C++ does not have, with the reference's values at every corner.
// Comparisons and + - * / are written as they are; layers_cuda/expressions.py prints the calls.

__device__ inline R f_max(R a, R b) { return a >= b || a != a ? a : b; }  // NaN comes through, unlike fmax
__device__ inline R f_min(R a, R b) { return a <= b || a != a ? a : b; }
__device__ inline R f_where(R test, R yes, R no) { return test != (R)0 ? yes : no; }
__device__ inline R f_abs(R a) { return fabs(a); }
__device__ inline R f_sign(R a) { return a > (R)0 ? (R)1 : a < (R)0 ? (R)-1 : a == (R)0 ? (R)0 : a; }
__device__ inline R f_floor(R a) { return floor(a); }
__device__ inline R f_trunc(R a) { return trunc(a); }
__device__ inline R f_exp(R a) { return exp(a); }
__device__ inline R f_expm1(R a) { return expm1(a); }
__device__ inline R f_log(R a) { return log(a); }
__device__ inline R f_log1p(R a) { return log1p(a); }
__device__ inline R f_sqrt(R a) { return sqrt(a); }
__device__ inline R f_sin(R a) { return sin(a); }
__device__ inline R f_cos(R a) { return cos(a); }
__device__ inline R f_erf(R a) { return erf(a); }
__device__ inline R f_tanh(R a) { return tanh(a); }
__device__ inline R f_pow(R a, R b) { return pow(a, b); }
__device__ inline R f_square(R a) { return a * a; }
__device__ inline R f_cube(R a) { return a * a * a; }
__device__ inline R f_sigmoid(R a) { return (R)0.5 * tanh((R)0.5 * a) + (R)0.5; }
__device__ inline R f_softplus(R a) { return f_max(a, (R)0) + log1p(exp(-fabs(a))); }
__device__ inline R f_relu(R a, R slope) { return a > (R)0 ? a : slope * a; }
__device__ inline R f_elu(R a, R alpha) { return a > (R)0 ? a : alpha * expm1(f_min(a, (R)0)); }
