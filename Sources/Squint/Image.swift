import SquintFile
import SquintMedia
import Synchronization

/// An image that a model is to look at: where it is, how it will be cut, and what that costs. Two images are the same where
/// they are the same object, so that a conversation knows which ones it has seen.
///
/// Its pixels are decoded when the session encodes it, and forgotten afterwards.
public final class Image: Sendable {
  public let path: String
  public let header: ImageHeader
  public let size: ImageSize
  private let processor: ImageProcessor
  /// The file, where it cannot be opened again by its path.
  private let kept: ImageFile?
  private let decoded = Mutex<TiledImage?>(nil)

  convenience init(path: String, _ vision: Vision, maximumTiles: Int? = nil) throws(SquintError) {
    try self.init(ImageFile(path: path), vision, maximumTiles: maximumTiles)
  }

  /// The same image, in no more than `maximumTiles` tiles.
  convenience init(_ image: Image, _ vision: Vision, maximumTiles: Int?) throws(SquintError) {
    try self.init(image.file(), vision, maximumTiles: maximumTiles)
  }

  private init(_ file: ImageFile, _ vision: Vision, maximumTiles: Int?) throws(SquintError) {
    path = file.path
    kept = file.isReadOnce ? file : nil
    let header = try ImageHeader.read(file)
    self.header = header
    do throws(SquintError) {
      processor =
        try maximumTiles.map { (most) throws(SquintError) in
          try vision.processor.limited(toTiles: most, width: header.width, height: header.height)
        } ?? vision.processor
      size = try ImageSize(
        vision, layout: processor.layout(width: header.width, height: header.height),
        decodingBytes: processor.peakBytes(for: header), heldBytes: file.heldBytes)
    } catch {
      throw error.naming(path)
    }
  }

  private func file() throws(SquintError) -> ImageFile {
    if let kept { return kept }
    return try ImageFile(path: path)
  }

  /// The rows of the decoder that it takes.
  public var rows: Int { size.rows }

  /// Its tiles, decoded now or before.
  func tiles() throws(SquintError) -> TiledImage {
    guard let tiles = try tiles(while: { true }) else { preconditionFailure("nobody cancelled it") }
    return tiles
  }

  /// The same; nil where `shouldContinue`, which is asked while it is decoded, said no.
  func tiles(while shouldContinue: () -> Bool) throws(SquintError) -> TiledImage? {
    if let tiles = decoded.withLock({ $0 }) { return tiles }
    guard let tiles = try processor.process(file(), while: shouldContinue) else { return nil }
    guard tiles.layout == size.layout else {
      throw .badData(path, "the image was changed while it was looked at; ask again")
    }
    decoded.withLock { $0 = tiles }
    return tiles
  }

  /// Whether it holds the memory of its pixels.
  package var isDecoded: Bool { decoded.withLock { $0 != nil } }

  /// Gives the memory of the pixels back.
  func forget() { decoded.withLock { $0 = nil } }
}

/// What an image takes, known from its width and height alone.
public struct ImageSize: Equatable, Sendable {
  /// How it is cut.
  public private(set) var layout: TileLayout
  /// The rows of the decoder that each tile becomes.
  public let rowsPerTile: Int
  /// The memory that decoding and cutting it take at most, its tiles among them, in bytes.
  public private(set) var decodingBytes: Int
  /// The memory of an image that came through a pipe, as long as it is there, in bytes.
  public let heldBytes: Int

  init(_ vision: Vision, layout: TileLayout, decodingBytes: Int, heldBytes: Int = 0) throws(SquintError) {
    self.heldBytes = heldBytes
    self.layout = layout
    self.decodingBytes = decodingBytes
    rowsPerTile = try vision.projectedRows(layout).count
  }

  /// What decoding an image takes beside its tiles where nothing is known of it: enough for a photograph of 50 megapixels,
  /// unless it is a progressive JPEG, an interlaced PNG or a WebP, which are held whole.
  static let usualDecoderBytes = 8 << 20

  /// The rows of the decoder that it takes.
  public var rows: Int { layout.count * rowsPerTile }

  /// The memory of its tiles, in bytes.
  public var pixelBytes: Int { layout.byteCount }

  /// What an image of at most `most` tiles takes instead.
  func limited(toTiles most: Int) -> ImageSize {
    guard layout.count > most else { return self }
    var size = self
    size.layout = TileLayout(rows: 1, columns: most, hasOverview: false, height: layout.height, width: layout.width)
    size.decodingBytes -= layout.byteCount - size.layout.byteCount
    return size
  }
}
