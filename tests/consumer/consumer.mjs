// A consumer of refimpl-case/1 in JavaScript; follows docs/case-format.md.
//
//     node consumer.mjs CASE_DIR...     computes every output and compares it with outputs.npz
//
// Prints one line per output; exits with 1 if one differs by more than 1e-10, with 2 if a file
// cannot be used.
import { readFileSync } from 'node:fs'
const { abs, cos, exp, hypot, log, log1p, max, min, sign, sqrt, tanh } = Math
const ITERATIONS = 1500, TOLERANCE = 1e-10

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
  const shape = header.match(/\((.*)\)/)[1].split(',').filter(side => side.trim()).map(Number)
  const raw = new Uint8Array(bytes.subarray(data)), doubles = header.includes('<f8')
  return { shape, x: doubles ? new Float64Array(raw.buffer) : Float64Array.from(raw) }
}

const mod = (i, n) => ((i % n) + n) % n
const boundaries = { // the pixel that position i stands for, −1 for zero
  zero: (i, n) => (i >= 0 && i < n ? i : -1),
  periodic: mod,
  symmetric: (i, n) => min(mod(i, 2 * n), 2 * n - 1 - mod(i, 2 * n)),
  reflect: (i, n) => (n > 1 ? min(mod(i, 2 * n - 2), 2 * n - 2 - mod(i, 2 * n - 2)) : 0),
  replicate: (i, n) => min(max(i, 0), n - 1),
}
const log2cosh = x => abs(x) + log1p(exp(-2 * abs(x)))
const potentials = { // parameters ↦ [φ, σ, σ′]
  quadratic: () => [z => z ** 2 / 2, z => z, () => 1],
  half_squared_relu: () => [z => max(z, 0) ** 2 / 2, z => max(z, 0), z => +(z > 0)],
  soft_shrinkage: ({ threshold: t = 0.1 }) => [
    z => max(abs(z) - t, 0) ** 2 / 2, z => sign(z) * max(abs(z) - t, 0), z => +(abs(z) > t)],
  log_cosh: ({ slope: x = 1 }) => [
    z => (log2cosh(x * z) - log(2)) / x, z => tanh(x * z), z => x * (1 - tanh(x * z) ** 2)],
  lorentzian: () => [
    z => log1p(z * z), z => 2 * z / (1 + z * z), z => 2 * (1 - z * z) / (1 + z * z) ** 2],
  smoothed_l1: ({ nu = 0.1 }) => [
    z => hypot(z, nu), z => z / hypot(z, nu), z => nu ** 2 / hypot(z, nu) ** 3],
  huber: ({ delta: d = 1 }) => [
    z => (abs(z) <= d ? z * z / (2 * d) : abs(z) - d / 2),
    z => max(min(z / d, 1), -1), z => (abs(z) < d ? 1 / d : 0)],
}

class Operator { // a list of terms z[row] += a[k] u[column]
  constructor(rows, columns, terms) {
    Object.assign(this, { rows, columns, terms: Int32Array.from(terms.flat()) })
  }
  collect(out, to, x, from, y, by) {
    for (let t = 0; t < this.terms.length; t += 3) {
      out[this.terms[t + to]] += x[this.terms[t + from]] * y[this.terms[t + by]]
    }
    return out
  }
  apply(a, u) { return this.collect(new Float64Array(this.rows), 0, a, 2, u, 1) }
  adjoint(a, z) { return this.collect(new Float64Array(this.columns), 1, a, 2, z, 0) }
  coefficients(u, z, a) { return this.collect(new Float64Array(a.length), 2, u, 1, z, 0) } // B*
}
const times = (n, f) => Array.from({ length: n }, (_, i) => f(i))
const diagonal = (n, count) => new Operator(n, n, times(n, r => [r, r, r % count]))
const dense = (rows, n) => new Operator(rows, n, times(rows * n, k => [k / n | 0, k % n, k]))
function windows(F, [h, w], [, C, H, W], boundary, convolved) {
  const terms = [], direction = convolved ? -1 : 1
  for (let r = 0; r < F * H * W; r++) for (let c = 0; c < C; c++) for (let k = 0; k < h * w; k++) {
    const f = r / (H * W) | 0, a = (k / w | 0) - (h >> 1), b = k % w - (w >> 1)
    const p = boundary((r / W | 0) % H + direction * a, H), q = boundary(r % W + direction * b, W)
    if (p < 0 || q < 0 || (convolved && c !== f)) continue
    terms.push([r, (c * H + p) * W + q, k + (convolved ? 0 : (f * C + c) * h * w)])
  }
  return new Operator(F * H * W, C * H * W, terms)
}

const sum = x => x.reduce((total, value) => total + value, 0)
const scaled = (s, x) => x.map(value => s * value)
const plus = (x, s, y) => x.map((value, i) => value + s * y[i])
const product = (x, y) => x.map((value, i) => value * y[i])
const norm = x => sqrt(sum(product(x, x)))
const iterate = (f, x) => times(ITERATIONS, () => (x = f(x))).at(-1)

function spectrum(B, x) { // ‖B(x)‖ and its singular vectors, by power iteration
  const unit = y => scaled(1 / norm(y), y)
  const start = unit(times(B.columns, i => cos(i + 1)))
  const right = iterate(p => unit(B.adjoint(x, B.apply(x, p))), start)
  return { right, left: unit(B.apply(x, right)), size: norm(B.apply(x, right)) }
}

function outputs(settings, arrays) {
  const { tau, lam, gamma, tied, norm: s } = settings, shape = arrays.u.shape, N = shape[0]
  const { A, C = A, kernel, mask, matrix } = arrays, F = A.shape[0], n = arrays.u.x.length / N
  const k = (kernel ?? mask ?? matrix)?.x ?? [1], at = boundaries[settings.operator_boundary]
  const K = matrix ? dense(k.length / n, n)
    : kernel ? windows(shape[1], kernel.shape, shape, at, true) : diagonal(n, k.length)
  const B = A.shape.length === 2 ? dense(F, n)
    : windows(F, A.shape.slice(2), shape, boundaries[settings.boundary], false)
  const each = B.rows / F
  const perResponse = (given, other) => times(B.rows, r => given?.x[r / each | 0] ?? other)
  const perFilter = x => times(F, f => sum(x.slice(f * each, (f + 1) * each)))
  const b = perResponse(arrays.b, 0), w = perResponse(arrays.weights, 1)
  const spectra = s ? [spectrum(B, A.x), spectrum(B, C.x)] : []
  const [a, c] = [A.x, C.x].map((x, i) => (s ? scaled(s / spectra[i].size, x) : x))

  const functions = potentials[settings.potential](settings.potential_parameters ?? {})
  const [phi, sigma, slope] = functions.map(f => u => plus(B.apply(a, u), 1, b).map(f))
  const misfit = (u, y) => plus(K.apply(k, u), -1, y)
  const energy = (u, y) => lam / 2 * norm(misfit(u, y)) ** 2 + gamma * sum(product(w, phi(u))) // E2
  const direction = (u, y) => // λ Kᵀ(K u − y) + F(u), E3
    plus(scaled(lam, K.adjoint(k, misfit(u, y))), gamma, B.adjoint(c, product(w, sigma(u))))
  const tangent = (u, from, to) => { // E4 from a to c, E5 from c to a
    const d = product(w, slope(u))
    const field = x => B.adjoint(to, product(d, B.apply(from, x)))
    return x => plus(plus(x, -tau * lam, K.adjoint(k, K.apply(k, x))), -tau * gamma, field(x))
  }
  const out = {}, keep = (name, x) => { out[name] = [...(out[name] ?? []), ...x] }
  const add = (name, x) => { out[name] = out[name] ? plus(x, 1, out[name]) : x }
  const parameters = (u, q, of) => { // E6; tied: both terms for A, E7
    const z = scaled(-tau * gamma, B.apply(c, q)), r = product(product(w, slope(u)), z)
    const response = scaled(-tau * gamma, product(w, sigma(u)))
    add(`${of}_A`, B.coefficients(u, r, a))
    add(`${of}_${tied ? 'A' : 'C'}`, B.coefficients(q, response, a))
    add(`${of}_b`, perFilter(r))
    add(`${of}_weights`, perFilter(product(sigma(u), z)))
  }
  for (let i = 0; i < N; i++) {
    const [u, v, cotangent, y, target] = ['u', 'v', 'w', 'y', 'target'].map(name => arrays[name].x)
      .map(x => x.subarray(i * x.length / N, (i + 1) * x.length / N))
    const step = x => plus(x, -tau, direction(x, y)), jvp = tangent(u, a, c)(v) // E8
    keep('map', step(u))
    keep('jvp', jvp)
    keep('vjp', tangent(u, c, a)(cotangent))
    parameters(u, cotangent, 'vjp')
    if (tied) {
      keep('energy', [energy(u, y)])
      keep('gradient', direction(u, y))
      keep('hvp', scaled(1 / tau, plus(v, -1, jvp)))
    }
    const star = iterate(step, K.adjoint(k, y)), error = plus(star, -1, target)
    const adjoint = tangent(star, c, a), g = scaled(2 / (N * n), error)
    keep('fixed_point', star)
    add('loss', [norm(error) ** 2 / (N * n)]) // E11
    parameters(star, iterate(q => plus(adjoint(q), 1, g), scaled(0, g)), 'hypergradient') // E9, E10
  }
  for (const name of s ? Object.keys(out).filter(key => /_[AC]$/.test(key)) : []) {
    const { right, left, size } = spectra[+name.endsWith('C')] // back through A = s Â / ‖Â‖
    const along = sum(product(out[name], (name.endsWith('C') ? C : A).x)) / size
    out[name] = scaled(s / size, plus(out[name], -along, B.coefficients(right, left, a)))
  }
  return out
}

try {
  let agree = process.argv.length > 2
  for (const folder of process.argv.slice(2)) {
    const settings = JSON.parse(readFileSync(`${folder}/case.json`))
    const found = outputs(settings, npz(`${folder}/inputs.npz`))
    for (const [name, { x }] of Object.entries(npz(`${folder}/outputs.npz`))) {
      const same = found[name].length === x.length
      const error = same ? norm(plus(x, -1, found[name])) / norm(x) : Infinity
      console.log(folder, name, error.toExponential(1), error <= TOLERANCE ? 'agrees' : 'DIFFERS')
      agree &&= error <= TOLERANCE
    }
  }
  process.exitCode = agree ? 0 : 1
} catch (error) {
  console.error(`consumer: ${error.message}`)
  process.exitCode = 2
}
