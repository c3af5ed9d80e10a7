// The steps of rnn, lstm and gru between two products: one thread a value of the state. rows N, size D.
//
// A null pointer: there is none of that. cont is a row of N numbers that multiply the state before; where the state goes
// on (seen), the next step gets it multiplied by the next row of cont. RECTIFY: rnn's activation is a ReLU.
#include "common.cuh"
#include "functions.cuh"
#ifndef RECTIFY
#define RECTIFY 0
#endif

__device__ inline R at(const T* p, I i) { return p ? to<R>(p[i]) : (R)0; }
__device__ inline R factor(const T* cont, I row) { return cont ? to<R>(cont[row]) : (R)1; }
__device__ inline void pass_on(T* seen, const T* next, R value, I i, I row) {
  if (seen) seen[i] = to<T>(value * factor(next, row));
}

// y = cont (x + more): masks a state; makes the gradient of the state before the first step.
extern "C" __global__ void state(const T* x, const T* more, const T* cont, T* y, const I count, const I size) {
  EACH(i, count) { y[i] = to<T>((to<R>(x[i]) + at(more, i)) * factor(cont, quotient(i, size))); }
}

// out = dy + cont carry: the whole gradient of a step's output.
extern "C" __global__ void arriving(const T* dy, const T* carry, const T* cont, T* out, const I count, const I size) {
  EACH(i, count) { out[i] = to<T>(to<R>(dy[i]) + at(carry, i) * factor(cont, quotient(i, size))); }
}

// ------------------------------------------------------------------------------------------------------------------ rnn
extern "C" __global__ void rnn_step(T* y, T* seen, const T* next, const I count, const I size) {
  EACH(i, count) {
    const R x = to<R>(y[i]), h = RECTIFY ? f_max(x, (R)0) : tanh(x);
    y[i] = to<T>(h);
    pass_on(seen, next, h, i, quotient(i, size));
  }
}

extern "C" __global__ void rnn_grad_step(const T* y, const T* dy, const T* carry, const T* after, T* dx, const I count,
                                         const I size) {
  EACH(i, count) {
    const R h = to<R>(y[i]), whole = to<R>(dy[i]) + at(carry, i) * factor(after, quotient(i, size));
    dx[i] = to<T>(whole * (RECTIFY ? (h > (R)0 ? (R)1 : (R)0) : (R)1 - h * h));
  }
}

// ----------------------------------------------------------------------------------------------------------------- lstm
// gates: the sums become sigmoid(i), sigmoid(f), sigmoid(o), tanh(g).
extern "C" __global__ void lstm_step(T* gates, const T* before, const T* cont, const T* peep, T* cell, T* y, T* seen,
                                     const T* next, const I count, const I size) {
  EACH(e, count) {
    const I row = quotient(e, size), d = e - row * size;
    T* g = gates + row * 4 * size + d;
    const R old = at(before, e) * factor(cont, row);
    const R i = f_sigmoid(to<R>(g[0]) + at(peep, d) * old);
    const R f = f_sigmoid(to<R>(g[size]) + at(peep, size + d) * old);
    const R fresh = tanh(to<R>(g[3 * size]));
    const R c = f * old + i * fresh;
    const R o = f_sigmoid(to<R>(g[2 * size]) + at(peep, 2 * size + d) * c);
    const R h = o * tanh(c);
    g[0] = to<T>(i);
    g[size] = to<T>(f);
    g[2 * size] = to<T>(o);
    g[3 * size] = to<T>(fresh);
    cell[e] = to<T>(c);
    y[e] = to<T>(h);
    pass_on(seen, next, h, e, row);
  }
}

// dh: the gradient of what came out; dc: of the cell, from the step after to the step before.
extern "C" __global__ void lstm_grad_step(const T* gates, const T* cell, const T* before, const T* cont, const T* peep,
                                          const T* dh, const T* dcell, T* dc, T* dx, const I count, const I size) {
  EACH(e, count) {
    const I row = quotient(e, size), d = e - row * size, place = row * 4 * size + d;
    const T* g = gates + place;
    const R i = to<R>(g[0]), f = to<R>(g[size]), o = to<R>(g[2 * size]), fresh = to<R>(g[3 * size]);
    const R keep = factor(cont, row), old = at(before, e) * keep, bent = tanh(to<R>(cell[e])), whole = to<R>(dh[e]);
    const R slope_o = whole * bent * o * ((R)1 - o);
    R slope = whole * o * ((R)1 - bent * bent) + to<R>(dc[e]) + at(dcell, e);
    slope += at(peep, 2 * size + d) * slope_o;
    const R slope_i = slope * fresh * i * ((R)1 - i), slope_f = slope * old * f * ((R)1 - f);
    dx[place] = to<T>(slope_i);
    dx[place + size] = to<T>(slope_f);
    dx[place + 2 * size] = to<T>(slope_o);
    dx[place + 3 * size] = to<T>(slope * i * ((R)1 - fresh * fresh));
    dc[e] = to<T>(keep * (slope * f + at(peep, d) * slope_i + at(peep, size + d) * slope_f));
  }
}

// ------------------------------------------------------------------------------------------------------------------ gru
// product: w h, N 3D (null: zeros).
extern "C" __global__ void gru_step(const T* x, const T* product, const T* b, const T* before, const T* cont, T* y,
                                    T* gates, T* seen, const T* next, const I count, const I size) {
  EACH(e, count) {
    const I row = quotient(e, size), d = e - row * size, place = row * 3 * size + d;
    const R r = f_sigmoid(to<R>(x[place]) + at(product, place));
    const R z = f_sigmoid(to<R>(x[place + size]) + at(product, place + size));
    const R u = at(product, place + 2 * size) + at(b, d);
    const R n = tanh(to<R>(x[place + 2 * size]) + r * u);
    const R h = ((R)1 - z) * n + z * (at(before, e) * factor(cont, row));
    T* g = gates + row * 4 * size + d;
    g[0] = to<T>(r);
    g[size] = to<T>(z);
    g[2 * size] = to<T>(n);
    g[3 * size] = to<T>(u);
    y[e] = to<T>(h);
    pass_on(seen, next, h, e, row);
  }
}

// direct: what goes to the state before past the product, in place of what came from the step after.
extern "C" __global__ void gru_grad_step(const T* gates, const T* before, const T* cont, const T* dy, const T* carry,
                                         const T* after, T* direct, T* dx, T* du, const I count, const I size) {
  EACH(e, count) {
    const I row = quotient(e, size), d = e - row * size, place = row * 3 * size + d;
    const T* g = gates + row * 4 * size + d;
    const R r = to<R>(g[0]), z = to<R>(g[size]), n = to<R>(g[2 * size]), u = to<R>(g[3 * size]);
    const R whole = to<R>(dy[e]) + (to<R>(carry[e]) + to<R>(direct[e])) * factor(after, row);
    const R dn = whole * ((R)1 - z) * ((R)1 - n * n), dr = dn * u * r * ((R)1 - r);
    const R dz = whole * (at(before, e) * factor(cont, row) - n) * z * ((R)1 - z);
    dx[place] = du[place] = to<T>(dr);
    dx[place + size] = du[place + size] = to<T>(dz);
    dx[place + 2 * size] = to<T>(dn);
    du[place + 2 * size] = to<T>(dn * r);
    direct[e] = to<T>(whole * z);
  }
}
