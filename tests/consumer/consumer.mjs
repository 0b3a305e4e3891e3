// A consumer of refimpl-case/1 in JavaScript; follows docs/case-format.md section by section.
//
//     node consumer.mjs CASE_DIR...     computes every output and compares it with outputs.npz
//
// Prints one line per output; exits with 1 if one differs by more than 1e-10, with 2 if a file
// cannot be used.
import { readFileSync } from 'node:fs'
const { abs, cos, exp, hypot, log, log1p, max, min, sign, sqrt, tanh } = Math
const ITERATIONS = 1500, TOLERANCE = 1e-10

// Bytes: npz and npy

function npz(path) { // {name: {shape, x}}
  const file = readFileSync(path), arrays = {}
  const two = at => file.readUInt16LE(at), four = at => file.readUInt32LE(at)
  const end = file.lastIndexOf(Buffer.from('PK\x05\x06'))
  if (end < 0) throw Error(`${path}: no zip file`)
  let at = four(end + 16)
  for (let member = 0; member < two(end + 10); member++) {
    if (two(at + 10) !== 0) throw Error(`${path}: compressed`)
    const name = file.toString('utf8', at + 46, at + 46 + two(at + 28))
    const local = four(at + 42), begin = local + 30 + two(local + 26) + two(local + 28)
    arrays[name.slice(0, -'.npy'.length)] = npy(file.subarray(begin, begin + four(at + 24)))
    at += 46 + two(at + 28) + two(at + 30) + two(at + 32)
  }
  return arrays
}
function npy(bytes) {
  const data = 10 + bytes.readUInt16LE(8), header = bytes.toString('latin1', 10, data)
  const [, type] = header.match(/'(<f8|\|b1)', 'fortran_order': False/) ?? []
  if (!type) throw Error(`neither float64 nor bool by rows: ${header.trim()}`)
  const shape = header.match(/\((.*)\)/)[1].split(',').filter(side => side.trim()).map(Number)
  const raw = new Uint8Array(bytes.subarray(data))
  return { shape, x: type === '<f8' ? new Float64Array(raw.buffer) : Float64Array.from(raw) }
}

// Boundaries: the pixel that position i stands for, −1 for zero

const mod = (i, n) => ((i % n) + n) % n
const boundaries = {
  zero: (i, n) => (i >= 0 && i < n ? i : -1),
  periodic: mod,
  symmetric: (i, n) => min(mod(i, 2 * n), 2 * n - 1 - mod(i, 2 * n)),
  reflect: (i, n) => (n > 1 ? min(mod(i, 2 * n - 2), 2 * n - 2 - mod(i, 2 * n - 2)) : 0),
  replicate: (i, n) => min(max(i, 0), n - 1),
}

// Operators: terms (row, column, k), z[row] += a[k] u[column]

class Operator {
  constructor(rows, columns, terms) {
    Object.assign(this, { rows, columns, terms: Int32Array.from(terms.flat()) })
  }
  each(f) {
    const { terms } = this
    for (let t = 0; t < terms.length; t += 3) f(terms[t], terms[t + 1], terms[t + 2])
  }
  apply(a, u) {
    const z = new Float64Array(this.rows)
    this.each((row, column, k) => { z[row] += a[k] * u[column] })
    return z
  }
  adjoint(a, z) {
    const u = new Float64Array(this.columns)
    this.each((row, column, k) => { u[column] += a[k] * z[row] })
    return u
  }
  coefficients(u, z, count) { // B*(u, z)
    const g = new Float64Array(count)
    this.each((row, column, k) => { g[k] += z[row] * u[column] })
    return g
  }
}
const times = (n, f) => Array.from({ length: n }, (_, i) => f(i))
const diagonal = (n, count) => new Operator(n, n, times(n, r => [r, r, r % count]))
const dense = (rows, n) => new Operator(rows, n, times(rows * n, k => [k / n | 0, k % n, k]))
function filters([F, , h, w], [, C, H, W], pixel) {
  const terms = []
  for (let f = 0; f < F; f++) for (let i = 0; i < H; i++) for (let j = 0; j < W; j++)
  for (let c = 0; c < C; c++) for (let a = 0; a < h; a++) for (let b = 0; b < w; b++) {
    const p = pixel(i + a - (h - 1) / 2, H), q = pixel(j + b - (w - 1) / 2, W)
    if (p < 0 || q < 0) continue
    terms.push([(f * H + i) * W + j, (c * H + p) * W + q, ((f * C + c) * h + a) * w + b])
  }
  return new Operator(F * H * W, C * H * W, terms)
}
function convolution([h, w], [, C, H, W], pixel) {
  const terms = []
  for (let c = 0; c < C; c++) for (let i = 0; i < H; i++) for (let j = 0; j < W; j++)
  for (let a = 0; a < h; a++) for (let b = 0; b < w; b++) {
    const p = pixel(i - a + (h - 1) / 2, H), q = pixel(j - b + (w - 1) / 2, W)
    if (p >= 0 && q >= 0) terms.push([(c * H + i) * W + j, (c * H + p) * W + q, a * w + b])
  }
  return new Operator(C * H * W, C * H * W, terms)
}

// Potentials: parameters ↦ [φ, σ, σ′]

const log2cosh = x => abs(x) + log1p(exp(-2 * abs(x)))
const potentials = {
  quadratic: () => [z => z ** 2 / 2, z => z, () => 1],
  half_squared_relu: () => [z => max(z, 0) ** 2 / 2, z => max(z, 0), z => +(z > 0)],
  soft_shrinkage: ({ threshold: t = 0.1 }) => [
    z => max(abs(z) - t, 0) ** 2 / 2, z => sign(z) * max(abs(z) - t, 0), z => +(abs(z) > t)],
  log_cosh: ({ slope: chi = 1 }) => [
    z => (log2cosh(chi * z) - log(2)) / chi,
    z => tanh(chi * z), z => chi * (1 - tanh(chi * z) ** 2)],
  lorentzian: () => [
    z => log1p(z * z), z => 2 * z / (1 + z * z), z => 2 * (1 - z * z) / (1 + z * z) ** 2],
  smoothed_l1: ({ nu = 0.1 }) => [
    z => hypot(z, nu), z => z / hypot(z, nu), z => nu ** 2 / hypot(z, nu) ** 3],
  huber: ({ delta = 1 }) => [
    z => (abs(z) <= delta ? z * z / (2 * delta) : abs(z) - delta / 2),
    z => max(min(z / delta, 1), -1), z => (abs(z) < delta ? 1 / delta : 0)],
}

// Vectors

const sum = x => x.reduce((total, value) => total + value, 0)
const scaled = (s, x) => x.map(value => s * value)
const plus = (x, s, y) => x.map((value, i) => value + s * y[i]) // x + s y
const product = (x, y) => x.map((value, i) => value * y[i])
const norm = x => sqrt(sum(product(x, x)))
function iterate(f, x) {
  for (let n = 0; n < ITERATIONS; n++) x = f(x)
  return x
}

// Outputs

function model(settings, arrays) { // the formulas for one image
  const { tau, lam, gamma, norm: s } = settings, { A, C = A, kernel, mask, matrix, u } = arrays
  const F = A.shape[0], n = u.x.length / u.shape[0], k = (kernel ?? mask ?? matrix)?.x ?? [1]
  const K = matrix ? dense(k.length / n, n)
    : kernel ? convolution(kernel.shape, u.shape, boundaries[settings.operator_boundary])
    : diagonal(n, k.length)
  const B = A.shape.length === 2 ? dense(F, n)
    : filters(A.shape, u.shape, boundaries[settings.boundary])
  const spectra = s ? [spectrum(B, A.x), spectrum(B, C.x)] : []
  const [a, c] = [A.x, C.x].map((x, i) => (s ? scaled(s / spectra[i].size, x) : x))
  const repeated = (x, other) => times(B.rows, r => x?.x[r / (B.rows / F) | 0] ?? other)
  const bias = repeated(arrays.b, 0), omega = repeated(arrays.weights, 1)
  const [phi, sigma, slope] = potentials[settings.potential](settings.potential_parameters ?? {})
    .map(f => u => plus(B.apply(a, u), 1, bias).map(f))
  const misfit = (u, y) => plus(K.apply(k, u), -1, y)
  const energy = (u, y) => // E2
    lam / 2 * norm(misfit(u, y)) ** 2 + gamma * sum(product(omega, phi(u)))
  const direction = (u, y) => // λ Kᵀ(K u − y) + F(u), E3
    plus(scaled(lam, K.adjoint(k, misfit(u, y))), gamma, B.adjoint(c, product(omega, sigma(u))))
  const tangent = (u, from, to) => { // E4 from a to c, E5 from c to a
    const d = product(omega, slope(u))
    const field = x => B.adjoint(to, product(d, B.apply(from, x)))
    return x => plus(plus(x, -tau * lam, K.adjoint(k, K.apply(k, x))), -tau * gamma, field(x))
  }
  const perFilter = x => times(F, f => sum(x.slice(f * x.length / F, (f + 1) * x.length / F)))
  const parameters = (u, q) => { // E6
    const z = scaled(-tau * gamma, B.apply(c, q)), r = product(product(omega, slope(u)), z)
    const s = scaled(-tau * gamma, product(omega, sigma(u)))
    return { A: B.coefficients(u, r, a.length), C: B.coefficients(q, s, a.length),
      b: perFilter(r), weights: perFilter(product(sigma(u), z)) }
  }
  const start = y => K.adjoint(k, y)
  return { B, a, c, spectra, energy, direction, tangent, parameters, start }
}
function outputs(settings, arrays) {
  const { tau, tied } = settings, N = arrays.u.shape[0], size = arrays.u.x.length
  const { a, c, energy, direction, tangent, parameters, start, ...rest } = model(settings, arrays)
  const out = {}, keep = (name, x) => { out[name] = [...(out[name] ?? []), ...x] }
  const add = (name, x) => { out[name] = out[name] ? plus(x, 1, out[name]) : x }
  const addParameters = (of, u, q) => { // tied: both terms for A, E7
    const { A, C, b, weights } = parameters(u, q)
    add(`${of}_A`, A)
    add(`${of}_${tied ? 'A' : 'C'}`, C)
    add(`${of}_b`, b)
    add(`${of}_weights`, weights)
  }
  for (let i = 0; i < N; i++) {
    const [u, v, w, y, target] = ['u', 'v', 'w', 'y', 'target'].map(name => arrays[name].x)
      .map(x => x.subarray(i * x.length / N, (i + 1) * x.length / N))
    const step = x => plus(x, -tau, direction(x, y)) // E8
    keep('map', step(u))
    keep('jvp', tangent(u, a, c)(v))
    keep('vjp', tangent(u, c, a)(w))
    addParameters('vjp', u, w)
    if (tied) {
      keep('energy', [energy(u, y)])
      keep('gradient', direction(u, y))
      keep('hvp', scaled(1 / tau, plus(v, -1, tangent(u, a, c)(v))))
    }
    const star = iterate(step, start(y)), error = plus(star, -1, target)
    const adjoint = tangent(star, c, a), g = scaled(2 / size, error)
    keep('fixed_point', star)
    add('loss', [norm(error) ** 2 / size]) // E11
    const q = iterate(q => plus(adjoint(q), 1, g), scaled(0, g)) // E9
    addParameters('hypergradient', star, q) // E10
  }
  if (settings.norm) throughNorm(out, settings.norm, arrays, rest)
  return out
}

// Normalised cases

function spectrum(B, x) { // ‖B(x)‖ and its singular vectors, by power iteration
  const unit = y => scaled(1 / norm(y), y)
  const first = unit(times(B.columns, i => cos(i + 1)))
  const right = iterate(p => unit(B.adjoint(x, B.apply(x, p))), first)
  return { right, left: unit(B.apply(x, right)), size: norm(B.apply(x, right)) }
}
function throughNorm(out, s, { A, C = A }, { B, spectra }) {
  for (const name of Object.keys(out).filter(key => /_[AC]$/.test(key))) {
    const [given, { right, left, size }] = name.endsWith('A') ? [A, spectra[0]] : [C, spectra[1]]
    const along = sum(product(out[name], given.x)) / size
    const g = plus(out[name], -along, B.coefficients(right, left, given.x.length))
    out[name] = scaled(s / size, g)
  }
}

try {
  let agree = process.argv.length > 2
  for (const folder of process.argv.slice(2)) {
    const settings = JSON.parse(readFileSync(`${folder}/case.json`))
    if (settings.format !== 'refimpl-case/1') throw Error(`${folder}: another format`)
    const found = outputs(settings, npz(`${folder}/inputs.npz`))
    const expected = Object.entries(npz(`${folder}/outputs.npz`))
    if (expected.length === 0) throw Error(`${folder}: no outputs`)
    for (const [name, { x }] of expected) {
      const distance = found[name].length === x.length ? norm(plus(x, -1, found[name])) : Infinity
      const error = distance && distance / norm(x) // 0 where both are 0
      console.log(folder, name, error.toExponential(1), error <= TOLERANCE ? 'agrees' : 'DIFFERS')
      agree &&= error <= TOLERANCE
    }
  }
  process.exitCode = agree ? 0 : 1
} catch (error) {
  console.error(`consumer: ${error.message}`)
  process.exitCode = 2
}
