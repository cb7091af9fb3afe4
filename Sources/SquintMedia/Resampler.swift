import SquintFile

/// Takes the rows of an image, one after the other.
protocol RowReceiver: AnyObject {
  /// Takes the next row, [width, 4]: red, green, blue and a byte of no meaning.
  func take(_ row: UnsafePointer<UInt8>)
}

/// Gives each row to two receivers.
final class RowSplitter: RowReceiver {
  private let first: any RowReceiver
  private let second: any RowReceiver

  init(_ first: any RowReceiver, _ second: any RowReceiver) {
    self.first = first
    self.second = second
  }

  func take(_ row: UnsafePointer<UInt8>) {
    first.take(row)
    second.take(row)
  }
}

/// A resize in stored space: both axes, and which of the two passes comes first.
struct ResizeStep: Equatable {
  /// Along the stored rows, and across them.
  let along: ResamplingAxis
  let across: ResamplingAxis
  let acrossFirst: Bool

  /// The resize with these axes, of one arithmetic, of the image as displayed; `swapsAxes` where a displayed row is a stored column.
  ///
  /// Between the passes is a rounding to 8 bits, so that their order matters: levels at hard edges differ by up to 40.
  /// Pillow resizes the rows first, unless the height shrinks by more than twice as many pixels as the width
  /// (`ImagingResampleInner` in Resample.c, since Pillow 13; before, it took the rows of almost every image first).
  init(horizontal: ResamplingAxis, vertical: ResamplingAxis, swapsAxes: Bool) {
    let lost = (width: horizontal.inputs - horizontal.outputs, height: vertical.inputs - vertical.outputs)
    let verticalFirst = horizontal.arithmetic == .pillow && lost.height > 0 && lost.height > 2 * lost.width
    (along, across) = swapsAxes ? (vertical, horizontal) : (horizontal, vertical)
    acrossFirst = verticalFirst != swapsAxes
  }

  /// What a `Resampler` of this step holds, in bytes.
  var byteCount: Int {
    let heldRow = 4 * (acrossFirst ? along.inputs : along.window.count)
    return heldRow * across.largestCount + 4 * along.inputs + 4 * along.window.count + along.weightBytes
      + across.weightBytes + 4 * Resampler.sumCount
      // The weights of an output, before they are rounded.
      + 8 * max(along.largestCount, across.largestCount)
  }
}

/// Resizes an image while its rows come in, holding only as many of them as an output row is made of.
///
/// The numbers are those of Pillow's `ImagingResample` (Resample.c): two passes, each rounded to 8 bits.
final class Resampler: RowReceiver {
  private let step: ResizeStep
  private let along: ResamplingWeights
  private let across: ResamplingWeights
  private let next: any RowReceiver

  /// A ring of the rows that the next outputs need.
  private let ring: UnsafeMutablePointer<UInt8>
  private let ringRows: Int
  private let ringRowBytes: Int
  /// A row that has passed across the rows but not along, and one that is done.
  private let between: UnsafeMutablePointer<UInt8>
  private let done: UnsafeMutablePointer<UInt8>
  private let sums: UnsafeMutablePointer<Int32>
  private var inputRow = 0
  private var outputRow = 0

  static let sumCount = 512

  init(_ step: ResizeStep, next: any RowReceiver) {
    self.step = step
    self.next = next
    along = ResamplingWeights(step.along)
    across = ResamplingWeights(step.across)
    ringRows = step.across.largestCount
    ringRowBytes = 4 * (step.acrossFirst ? step.along.inputs : step.along.window.count)
    ring = .allocate(capacity: ringRows * ringRowBytes)
    between = .allocate(capacity: 4 * step.along.inputs)
    done = .allocate(capacity: 4 * step.along.window.count)
    sums = .allocate(capacity: Resampler.sumCount)
  }

  deinit {
    ring.deallocate()
    between.deallocate()
    done.deallocate()
    sums.deallocate()
  }

  func take(_ row: UnsafePointer<UInt8>) {
    defer { inputRow += 1 }
    guard outputRow < across.starts.count, inputRow >= across.starts[outputRow] else { return }
    let slot = ring + (inputRow % ringRows) * ringRowBytes
    if step.acrossFirst {
      memcpy(slot, row, ringRowBytes)
    } else {
      passAlong(row, to: slot)
    }
    while outputRow < across.starts.count, across.starts[outputRow] + across.counts[outputRow] <= inputRow + 1 {
      if step.acrossFirst {
        passAcross(to: between)
        passAlong(between, to: done)
      } else {
        passAcross(to: done)
      }
      outputRow += 1
      next.take(done)
    }
  }

  private func passAlong(_ row: UnsafePointer<UInt8>, to out: UnsafeMutablePointer<UInt8>) {
    let bits = along.fractionBits
    let half = SIMD4<Int32>(repeating: (1 << bits) >> 1)
    along.weights.withUnsafeBufferPointer { weights in
      for x in 0..<along.starts.count {
        var pixel = UnsafeRawPointer(row + 4 * Int(along.starts[x]))
        let first = weights.baseAddress! + Int(along.offsets[x])
        var sum = half
        for k in 0..<Int(along.counts[x]) {
          let levels = pixel.loadUnaligned(as: SIMD4<UInt8>.self)
          sum &+= SIMD4<Int32>(truncatingIfNeeded: levels) &* first[k]
          pixel += 4
        }
        let level = (sum &>> bits).clamped(
          lowerBound: .zero, upperBound: .init(repeating: 255))
        UnsafeMutableRawPointer(out + 4 * x).storeBytes(
          of: SIMD4<UInt8>(truncatingIfNeeded: level), as: SIMD4<UInt8>.self)
      }
    }
  }

  private func passAcross(to out: UnsafeMutablePointer<UInt8>) {
    let start = Int(across.starts[outputRow])
    let count = Int(across.counts[outputRow])
    let bits = across.fractionBits
    if count == 1, across.weights[Int(across.offsets[outputRow])] == 1 << bits {
      memcpy(out, ring + (start % ringRows) * ringRowBytes, ringRowBytes)
      return
    }
    across.weights.withUnsafeBufferPointer { weights in
      let first = weights.baseAddress! + Int(across.offsets[outputRow])
      // In pieces that the nearest cache holds while the rows go by.
      var from = 0
      while from < ringRowBytes {
        let width = min(Resampler.sumCount, ringRowBytes - from)
        sums.update(repeating: (1 << bits) >> 1, count: width)
        for k in 0..<count {
          let row = ring + ((start + k) % ringRows) * ringRowBytes + from
          let weight = first[k]
          for x in 0..<width { sums[x] &+= Int32(row[x]) &* weight }
        }
        for x in 0..<width { out[from + x] = UInt8(clamping: sums[x] &>> bits) }
        from += width
      }
    }
  }
}
