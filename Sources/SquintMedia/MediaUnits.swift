import SquintFile

/// A medium as the encoder takes it: its units, run after run, held in memory or decoded when they are read.
package struct MediaUnits: Sendable {
  package let layout: MediaLayout
  private let source: Source

  private enum Source: Sendable {
    case held([UInt8])
    case streamed(@Sendable () throws(SquintError) -> any MediaUnitStream)
  }

  /// - Parameter bytes: the numbers of all units, of the type that the encoder reads.
  package init(layout: MediaLayout, bytes: [UInt8]) {
    self.layout = layout
    source = .held(bytes)
  }

  /// - Parameter open: begins to decode them.
  package init(layout: MediaLayout, stream open: @escaping @Sendable () throws(SquintError) -> any MediaUnitStream) {
    self.layout = layout
    source = .streamed(open)
  }

  /// The bytes of all units; nil where they are streamed.
  package var bytes: [UInt8]? {
    if case .held(let bytes) = source { bytes } else { nil }
  }

  /// A reader before the first unit.
  ///
  /// - Throws: as the stream.
  package func reader() throws(SquintError) -> MediaUnitReader {
    switch source {
    case .held(let bytes): return MediaUnitReader(bytes, stream: nil)
    case .streamed(let open): return MediaUnitReader([], stream: try open())
    }
  }
}

/// Decodes units one after the other.
package protocol MediaUnitStream: AnyObject {
  /// Writes the numbers of the next unit to `unit`, which has room for them.
  ///
  /// - Parameter shouldContinue: asked now and then.
  /// - Returns: false where `shouldContinue` said no.
  /// - Throws: `badData` where the file is damaged; `noInput`, `inputOutput` where it cannot be read.
  func next(into unit: UnsafeMutableRawBufferPointer, while shouldContinue: () -> Bool) throws(SquintError) -> Bool
}

/// Hands out units in their order.
package final class MediaUnitReader {
  /// Those that are held, or those that were decoded last.
  private var bytes: [UInt8]
  private let stream: (any MediaUnitStream)?
  private var offset = 0

  fileprivate init(_ bytes: [UInt8], stream: (any MediaUnitStream)?) {
    self.bytes = bytes
    self.stream = stream
  }

  /// Calls `body` with the numbers of the next `count` units of `run`.
  ///
  /// - Parameter shouldContinue: asked while they are decoded.
  /// - Returns: what `body` returned; false where `shouldContinue` said no.
  package func next(
    _ count: Int, of run: MediaLayout.Run, while shouldContinue: () -> Bool,
    _ body: (UnsafeRawBufferPointer) throws(SquintError) -> Bool
  ) throws(SquintError) -> Bool {
    let byteCount = count * run.unitBytes
    if let stream {
      offset = 0
      if bytes.count < byteCount { bytes = [UInt8](repeating: 0, count: byteCount) }
      let result = bytes.withUnsafeMutableBytes { buffer in
        Result { () throws(SquintError) in
          for unit in 0..<count {
            let place = UnsafeMutableRawBufferPointer(
              rebasing: buffer[unit * run.unitBytes..<(unit + 1) * run.unitBytes])
            guard try stream.next(into: place, while: shouldContinue) else { return false }
          }
          return true
        }
      }
      guard try result.get() else { return false }
    }
    let first = offset
    offset += byteCount
    return try bytes.withBytes { (bytes) throws(SquintError) in
      try body(UnsafeRawBufferPointer(rebasing: bytes[first..<first + byteCount]))
    }
  }
}
