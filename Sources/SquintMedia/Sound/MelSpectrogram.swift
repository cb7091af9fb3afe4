import CKissFFT
import SquintFile

/// How samples become log-mel frames (formats/audio.md): transformers' `WhisperFeatureExtractor`.
package struct MelSpectrogram: Sendable, Equatable {
  /// Samples a second.
  package let rate: Int
  /// The samples of a frame, even.
  package let fft: Int
  /// From a frame to the next, in samples.
  package let hop: Int
  /// The numbers of a frame.
  package let mels: Int
  let filters: MelFilters

  package init(rate: Int, fft: Int, hop: Int, mels: Int, lowHertz: Double = 0, highHertz: Double? = nil) {
    self.rate = rate
    self.fft = fft
    self.hop = hop
    self.mels = mels
    filters = MelFilters(rate: rate, fft: fft, mels: mels, low: lowHertz, high: highHertz ?? Double(rate) / 2)
  }

  /// Nothing is less loud.
  static let floor = 1e-10
  /// How far below the loudest the softest is, as log10.
  private static let range = 8.0

  /// What a frame has for the power `power` in a mel, where the largest of all is `largest`.
  static func level(_ power: Double, largest: Double) -> Float {
    let least = log10(max(largest, floor)) - range
    return Float((max(log10(max(power, floor)), least) + 4) / 4)
  }

  /// At most what computing frames holds, in bytes: windows, what KissFFT has for its transform, and samples on the way.
  package var heldBytes: Int { 64 * fft + 16 * mels + filters.byteCount }
}

/// Triangles of equal area on Slaney's mel scale: transformers' `mel_filter_bank` with norm and mel_scale "slaney".
struct MelFilters: Sendable, Equatable {
  /// The frequencies that each filter lets through: bins of the transform.
  let bins: [Range<Int>]
  /// Of all filters, one after the other.
  let weights: [Double]

  init(rate: Int, fft: Int, mels: Int, low: Double, high: Double) {
    let (first, last) = (Self.mel(low), Self.mel(high))
    // NumPy's linspace.
    let step = (last - first) / Double(mels + 1)
    let points = (0..<mels + 2).map { Self.hertz($0 == mels + 1 ? last : Double($0) * step + first) }
    let frequencies = (0...fft / 2).map { Double($0) * (Double(rate / 2) / Double(fft / 2)) }
    var bins: [Range<Int>] = []
    var weights: [Double] = []
    for filter in 0..<mels {
      let (left, middle, right) = (points[filter], points[filter + 1], points[filter + 2])
      let triangle = frequencies.map { max(0, min(($0 - left) / (middle - left), (right - $0) / (right - middle))) }
      // NaN, of points that are one, is no more than 0 either.
      let start = triangle.firstIndex { $0 > 0 } ?? 0
      let end = (triangle.lastIndex { $0 > 0 } ?? start - 1) + 1
      bins.append(start..<end)
      weights += triangle[start..<end].map { $0 * (2 / (right - left)) }
    }
    self.bins = bins
    self.weights = weights
  }

  /// Slaney's scale is linear up to here, and logarithmic from there on: 15 mels, then 27 for each factor of 6.4.
  private static let corner = (hertz: 1000.0, mel: 15.0)
  private static let step = 27 / log(6.4)

  private static func mel(_ hertz: Double) -> Double {
    hertz < corner.hertz ? 3 * hertz / 200 : corner.mel + log(hertz / corner.hertz) * step
  }

  private static func hertz(_ mel: Double) -> Double {
    mel < corner.mel ? 200 * mel / 3 : corner.hertz * exp((mel - corner.mel) / step)
  }

  var byteCount: Int { 16 * bins.count + 8 * weights.count }
}

/// The powers in each mel of one frame after the other.
final class MelFrames {
  private let mel: MelSpectrogram
  private let signal: ReflectedSignal
  private let transform: kiss_fftr_cfg
  /// [fft], Hann's.
  private let window: [Double]
  /// The samples of the frame: [fft].
  private var samples: [Float]
  private var weighted: [Float]
  /// [fft / 2 + 1]
  private var spectrum: [kiss_fft_cpx]
  private var squares: [Double]
  private var hasBegun = false

  /// - Parameters:
  ///   - own: samples of which the first are the source's, the others 0.
  ///   - padded: all of them.
  init(_ mel: MelSpectrogram, _ source: SoundSamples, own: Int, padded: Int, _ file: MediaFile) throws(SquintError) {
    self.mel = mel
    signal = ReflectedSignal(source, own: own, count: padded, margin: mel.fft / 2)
    guard let transform = kiss_fftr_alloc(Int32(mel.fft), 0, nil, nil) else {
      throw SquintError(
        .doesNotFit, "\(file.path): there is no memory for the transform of a sound; close other programs")
    }
    self.transform = transform
    let fft = mel.fft
    window = (0..<fft).map { 0.5 - 0.5 * cos(2 * Double.pi * Double($0) / Double(fft)) }
    samples = [Float](repeating: 0, count: fft)
    weighted = samples
    spectrum = [kiss_fft_cpx](repeating: kiss_fft_cpx(r: 0, i: 0), count: fft / 2 + 1)
    squares = [Double](repeating: 0, count: fft / 2 + 1)
  }

  // kiss_fftr_free is a macro for this.
  deinit { free(UnsafeMutableRawPointer(transform)) }

  /// Calls `body` with the next frame's powers: [mels].
  ///
  /// - Returns: false where `shouldContinue` said no.
  func next(while shouldContinue: () -> Bool, _ body: (_ mel: Int, _ power: Double) -> Void) throws(SquintError) -> Bool
  {
    let old = hasBegun ? mel.fft - mel.hop : 0
    let result = samples.withUnsafeMutableBufferPointer { samples in
      Result { () throws(SquintError) in
        if old > 0 { memmove(samples.baseAddress!, samples.baseAddress! + mel.hop, old * MemoryLayout<Float>.stride) }
        return try signal.read(
          into: UnsafeMutableBufferPointer(rebasing: samples[old...]), while: shouldContinue)
      }
    }
    guard try result.get() else { return false }
    hasBegun = true
    guard samples.contains(where: { $0 != 0 }) else {
      for mel in 0..<mel.mels { body(mel, 0) }
      return true
    }
    for index in 0..<mel.fft { weighted[index] = Float(Double(samples[index]) * window[index]) }
    kiss_fftr(transform, weighted, &spectrum)
    for (bin, number) in spectrum.enumerated() {
      squares[bin] = Double(number.r) * Double(number.r) + Double(number.i) * Double(number.i)
    }
    var weight = 0
    for (filter, bins) in mel.filters.bins.enumerated() {
      var power = 0.0
      for bin in bins {
        power += mel.filters.weights[weight] * squares[bin]
        weight += 1
      }
      body(filter, power)
    }
    return true
  }
}

/// A signal that is followed by zeros and then reflected at both ends, read once from the beginning of its reflection on.
private final class ReflectedSignal {
  private let source: SoundSamples
  /// The samples of the source that count.
  private let own: Int
  /// The samples without the reflections.
  private let count: Int
  /// The samples of a reflection.
  private let margin: Int
  /// The next sample; the reflection before the first is negative.
  private var position: Int
  /// The first samples, and the last: all that reflections need.
  private var head: [Float] = []
  private var tail: [Float] = []

  init(_ source: SoundSamples, own: Int, count: Int, margin: Int) {
    self.source = source
    self.own = own
    self.count = count
    self.margin = margin
    position = -margin
  }

  /// Fills `buffer`, which must not go beyond the reflection; false where `shouldContinue` said no.
  func read(
    into buffer: UnsafeMutableBufferPointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Bool {
    if head.isEmpty {
      head = [Float](repeating: 0, count: min(count, margin + 1))
      let result = head.withUnsafeMutableBufferPointer { head in
        Result { () throws(SquintError) in try take(from: 0, into: head, while: shouldContinue) }
      }
      guard try result.get() else {
        head = []
        return false
      }
      keep(head[...], from: 0)
    }
    var done = 0
    while done < buffer.count {
      if position >= head.count, position < count {
        let step = min(buffer.count - done, count - position)
        let part = UnsafeMutableBufferPointer(rebasing: buffer[done..<done + step])
        guard try take(from: position, into: part, while: shouldContinue) else { return false }
        keep(part[...], from: position)
        position += step
        done += step
        continue
      }
      let index = mirrored(position)
      buffer[done] = index < head.count ? head[index] : tail[index - (count - tail.count)]
      position += 1
      done += 1
    }
    return true
  }

  /// Where the sample at `position` is taken from.
  private func mirrored(_ position: Int) -> Int {
    guard count > 1 else { return 0 }
    let period = 2 * (count - 1)
    let place = ((position % period) + period) % period
    return place < count ? place : period - place
  }

  /// Remembers those of the samples from `start` on that are among the last.
  private func keep(_ samples: some RandomAccessCollection<Float>, from start: Int) {
    let first = count - min(count, margin + 1)
    tail += samples.dropFirst(max(0, first - start))
  }

  /// The samples from `start` on, which are asked for in their order.
  private func take(
    from start: Int, into buffer: UnsafeMutableBufferPointer<Float>, while shouldContinue: () -> Bool
  ) throws(SquintError) -> Bool {
    let owned = max(0, min(buffer.count, own - start))
    var done = 0
    while done < owned {
      let part = UnsafeMutableBufferPointer(rebasing: buffer[done..<owned])
      guard let read = try source.read(into: part, while: shouldContinue) else { return false }
      guard read > 0 else { break }  // less than was asked for: zeros
      done += read
    }
    buffer[done...].update(repeating: 0)
    return true
  }
}
