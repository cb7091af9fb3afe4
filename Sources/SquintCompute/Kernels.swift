import CKernels
import SquintFile

/// The arithmetic of one instruction set: functions in C, chosen once at run time (CKernels/include/kernels.h says what
/// each computes).
///
/// The functions allocate nothing and keep no state; several threads may call them at once on separate outputs.
package struct Kernels: Sendable {
  package typealias Product = @convention(c) (UnsafePointer<squint_product>?, UInt32, UInt32) -> Void
  package typealias RepeatDots =
    @convention(c) (UnsafePointer<UInt8>?, UnsafePointer<Int8>?, UInt32) -> UInt64
  package typealias Quantize =
    @convention(c) (
      UnsafePointer<Float>?, Int, UnsafeMutablePointer<Int8>?, UnsafeMutablePointer<Float>?,
      UnsafeMutablePointer<Int32>?
    ) -> Void
  package typealias PlainProduct = @convention(c) (UnsafePointer<squint_plain_product>?, UInt32, UInt32) -> Void
  package typealias HalfToFloat = @convention(c) (UnsafePointer<UInt16>?, UnsafeMutablePointer<Float>?, Int) -> Void
  package typealias FloatToHalf = @convention(c) (UnsafePointer<Float>?, UnsafeMutablePointer<UInt16>?, Int) -> Void
  package typealias FloatToInt8 =
    @convention(c) (UnsafePointer<Float>?, Int, UnsafeMutablePointer<Int8>?, UnsafeMutablePointer<UInt16>?) -> Void
  package typealias PackRows =
    @convention(c) (UnsafePointer<Float>?, Int, UInt32, UInt32, UnsafeMutablePointer<UInt8>?) -> Void
  package typealias PackColumns =
    @convention(c) (UnsafePointer<Float>?, Int, UInt32, UInt32, UInt32, UnsafeMutablePointer<UInt8>?) -> Void
  package typealias Attention =
    @convention(c) (UnsafePointer<squint_attention>?, UInt32, UInt32, UnsafeMutablePointer<Float>?) -> Void
  package typealias RMSNorm =
    @convention(c) (UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafeMutablePointer<Float>?, Int, Float) -> Void
  package typealias LayerNorm =
    @convention(c) (
      UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafeMutablePointer<Float>?, Int, Float
    ) -> Void
  package typealias Activate = @convention(c) (UnsafeMutablePointer<Float>?, Int) -> Void
  package typealias Rotary =
    @convention(c) (
      UnsafeMutablePointer<Float>?, Int, Int, Int, UnsafePointer<Float>?, UnsafePointer<Float>?
    ) -> Void
  package typealias Hadamard = @convention(c) (UnsafeMutablePointer<Float>?, Int, Int, Int) -> Void
  package typealias Binary =
    @convention(c) (UnsafePointer<Float>?, UnsafePointer<Float>?, UnsafeMutablePointer<Float>?, Int) -> Void
  package typealias Softmax =
    @convention(c) (UnsafePointer<Float>?, Int, Float, squint_rounded, squint_rounded) -> Void
  package typealias Unary = @convention(c) (UnsafePointer<Float>?, UnsafeMutablePointer<Float>?, Int) -> Void

  /// generic, avx2, avxvnni, avx512vnni, neon, dotprod or i8mm.
  package let name: String

  // Addresses of code: they never change, and need no protection between threads.
  /// The product of a quantized matrix and quantized activations: `(product, firstPanel, panels)`.
  package nonisolated(unsafe) let product: Product
  /// The inner loop of `product` alone, for what it can do at most: `(weights, x, repeats)`.
  package nonisolated(unsafe) let repeatDots: RepeatDots
  /// Activations to int8 with a scale per group: `(x, columns, q, scales, sums)`.
  package nonisolated(unsafe) let quantize: Quantize
  /// The product of a matrix in plain rows and f32 activations: `(product, firstRow, rows)`.
  package nonisolated(unsafe) let plainProduct: PlainProduct
  /// `(x, y, count)`
  package nonisolated(unsafe) let f16ToF32: HalfToFloat
  /// `(x, y, count)`
  package nonisolated(unsafe) let bf16ToF32: HalfToFloat
  /// `(x, y, count)`
  package nonisolated(unsafe) let f32ToF16: FloatToHalf
  /// For the KV cache: `(x, count, q, scales)`.
  package nonisolated(unsafe) let f32ToInt8: FloatToInt8
  /// Rows to one int8 panel: `(x, stride, rows, columns, panel)`.
  package nonisolated(unsafe) let packRows: PackRows
  /// Columns to one group of an int8 panel: `(x, stride, rows, columns, group, panel)`.
  package nonisolated(unsafe) let packColumns: PackColumns
  /// The heads that share one KV head: `(attention, firstToken, tokens, scratch)`.
  package nonisolated(unsafe) let attention: Attention
  /// `(x, weight, y, count, epsilon)`
  package nonisolated(unsafe) let rmsNorm: RMSNorm
  /// `(x, weight, bias, y, count, epsilon)`
  package nonisolated(unsafe) let layerNorm: LayerNorm
  /// In place: `(x, heads, headStride, pairs, cosines, sines)`.
  package nonisolated(unsafe) let rotary: Rotary
  /// In place: `(x, heads, headStride, width)`.
  package nonisolated(unsafe) let hadamard: Hadamard
  /// `(gate, up, y, count)`
  package nonisolated(unsafe) let siluMultiply: Binary
  // The activation functions, in place: `(x, count)`.
  package nonisolated(unsafe) let gelu: Activate
  package nonisolated(unsafe) let geluTanh: Activate
  package nonisolated(unsafe) let quickGELU: Activate
  package nonisolated(unsafe) let relu: Activate
  package nonisolated(unsafe) let silu: Activate
  /// `(x, other, y, count)`
  package nonisolated(unsafe) let add: Binary
  /// `(x, other, y, count)`
  package nonisolated(unsafe) let multiply: Binary
  /// `(x, count, scale, high, low)`
  package nonisolated(unsafe) let softmax: Softmax
  /// `(x, y, count)`
  package nonisolated(unsafe) let exponential: Unary

  private init(_ table: squint_kernels) {
    name = String(cString: table.name)
    product = table.product
    repeatDots = table.repeat_dots
    quantize = table.quantize
    plainProduct = table.plain_product
    f16ToF32 = table.f16_to_f32
    bf16ToF32 = table.bf16_to_f32
    f32ToF16 = table.f32_to_f16
    f32ToInt8 = table.f32_to_int8
    packRows = table.pack_rows
    packColumns = table.pack_columns
    attention = table.attention
    rmsNorm = table.rms_norm
    layerNorm = table.layer_norm
    rotary = table.rotary
    hadamard = table.hadamard
    siluMultiply = table.silu_multiply
    gelu = table.gelu
    geluTanh = table.gelu_tanh
    quickGELU = table.quick_gelu
    relu = table.relu
    silu = table.silu
    add = table.add
    multiply = table.multiply
    softmax = table.softmax
    exponential = table.exponential
  }

  /// Those that this CPU can run, best first; the last is `generic`.
  package static let available: [Kernels] = {
    var list: [Kernels] = []
    var index = 0
    while let table = squint_kernels_at(index) {
      if squint_kernels_supported(table) { list.append(Kernels(table.pointee)) }
      index += 1
    }
    return list
  }()

  /// The kernels called `name`, or nil where there are none of that name or this CPU cannot run them.
  package static func named(_ name: String) -> Kernels? { available.first { $0.name == name } }

  /// The best that this CPU can run, or those that the environment variable `SQUINT_ISA` names.
  ///
  /// - Throws: `SquintError.usage` when `SQUINT_ISA` names none that this machine has.
  package static func best() throws(SquintError) -> Kernels {
    try chosen(getenv("SQUINT_ISA").map { String(cString: $0) })
  }

  /// The kernels that `name` asks for: the best where it is nil or empty.
  package static func chosen(_ name: String?) throws(SquintError) -> Kernels {
    guard let name, !name.isEmpty else { return available[0] }
    guard let kernels = named(name) else {
      let names = available.map(\.name).joined(separator: ", ")
      throw SquintError(.usage, "SQUINT_ISA=\(name): this machine has no such instruction set; it has \(names)")
    }
    return kernels
  }

  /// How many floats of scratch `attention` needs for heads of this dimension.
  package static func attentionScratch(headDimension: Int) -> Int {
    squint_attention_scratch(UInt32(headDimension))
  }
}
