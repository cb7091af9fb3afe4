import SquintFile

/// What a SentencePiece model file says: a protobuf message, google/sentencepiece, sentencepiece_model.proto.
struct SentencePieceModel {
  enum PieceType: Int {
    case normal = 1
    case unknown = 2
    case control = 3
    case userDefined = 4
    case unused = 5
    case byte = 6
  }

  struct Piece {
    var text = ""
    var score: Float = 0
    var type = PieceType.normal
  }

  var pieces: [Piece] = []
  /// TrainerSpec.model_type: 1 unigram, 2 BPE, 3 words, 4 characters.
  var modelType = 1
  var byteFallback = false
  var unknownID = 0
  var bosID = 1
  var eosID = 2
  var padID = -1
  var addsDummyPrefix = true
  var removesExtraWhitespace = true
  var escapesWhitespace = true
  /// The table of replacements that normalizes the text; may be empty.
  var characterMap: [UInt8] = []
  /// Whether spaces come at the end of words instead of the start.
  var treatsWhitespaceAsSuffix = false

  /// - Throws: `SquintError.badData` where the bytes are no such message.
  init(parsing bytes: UnsafeRawBufferPointer, name: String) throws(SquintError) {
    var message = ProtobufReader(bytes, name: name)
    while let (field, value) = try message.next() {
      switch (field, value) {
      case (1, .bytes(let piece)): pieces.append(try Self.piece(piece, name: name))
      case (2, .bytes(let trainer)): try read(trainer: trainer, name: name)
      case (3, .bytes(let normalizer)): try read(normalizer: normalizer, name: name)
      default: break
      }
    }
    guard !pieces.isEmpty else { throw .badData(name, "no pieces; this is not a SentencePiece model") }
  }

  private static func piece(_ bytes: UnsafeRawBufferPointer, name: String) throws(SquintError) -> Piece {
    var piece = Piece()
    var message = ProtobufReader(bytes, name: name)
    while let (field, value) = try message.next() {
      switch (field, value) {
      case (1, .bytes(let text)):
        guard let text = String(validating: text, as: UTF8.self) else {
          throw .badData(name, "a piece is not UTF-8")
        }
        piece.text = text
      case (2, .fixed32(let bits)): piece.score = Float(bitPattern: bits)
      case (3, .integer(let number)):
        guard let type = PieceType(rawValue: Int(truncatingIfNeeded: number)) else {
          throw .badData(name, "a piece is of type \(number), which SentencePiece does not have")
        }
        piece.type = type
      default: break
      }
    }
    return piece
  }

  private mutating func read(trainer bytes: UnsafeRawBufferPointer, name: String) throws(SquintError) {
    var message = ProtobufReader(bytes, name: name)
    while let (field, value) = try message.next() {
      guard case .integer(let bits) = value else { continue }
      let number = Int(Int32(truncatingIfNeeded: bits))
      switch field {
      case 3: modelType = number
      case 24: treatsWhitespaceAsSuffix = number != 0
      case 35: byteFallback = number != 0
      case 40: unknownID = number
      case 41: bosID = number
      case 42: eosID = number
      case 43: padID = number
      default: break
      }
    }
  }

  private mutating func read(normalizer bytes: UnsafeRawBufferPointer, name: String) throws(SquintError) {
    var message = ProtobufReader(bytes, name: name)
    while let (field, value) = try message.next() {
      switch (field, value) {
      case (2, .bytes(let map)): characterMap = Array(map)
      case (3, .integer(let number)): addsDummyPrefix = number != 0
      case (4, .integer(let number)): removesExtraWhitespace = number != 0
      case (5, .integer(let number)): escapesWhitespace = number != 0
      default: break
      }
    }
  }
}

/// Reads the fields of one protobuf message (protobuf.dev, "Encoding").
private struct ProtobufReader {
  enum Value {
    case integer(UInt64)
    case fixed32(UInt32)
    case fixed64(UInt64)
    case bytes(UnsafeRawBufferPointer)
  }

  private var cursor: ByteCursor

  init(_ bytes: UnsafeRawBufferPointer, name: String) { cursor = ByteCursor(bytes, place: name) }

  private mutating func varint() throws(SquintError) -> UInt64 {
    var value: UInt64 = 0
    for shift in stride(from: UInt64(0), to: 70, by: 7) {
      let byte = try cursor.next(UInt8.self)
      value |= UInt64(byte & 0x7F) << shift
      if byte < 0x80 { return value }
    }
    throw cursor.error("a number is longer than ten bytes; this is not a SentencePiece model")
  }

  /// The next field, or nil at the end.
  mutating func next() throws(SquintError) -> (field: Int, value: Value)? {
    guard cursor.remaining > 0 else { return nil }
    let tag = try varint()
    let field = Int(tag >> 3)
    switch tag & 7 {
    case 0: return (field, .integer(try varint()))
    case 1: return (field, .fixed64(try cursor.next(UInt64.self)))
    case 2:
      let length = try varint()
      guard length <= UInt64(cursor.remaining) else {
        throw cursor.error("a field of \(grouped(length)) bytes runs past the end; the file is incomplete")
      }
      return (field, .bytes(try cursor.take(Int(length))))
    case 5: return (field, .fixed32(try cursor.next(UInt32.self)))
    default: throw cursor.error("a field of wire type \(tag & 7); this is not a SentencePiece model")
    }
  }
}
