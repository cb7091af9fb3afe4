import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct ReaderJSONTests {
  private func parse(_ text: String) throws -> JSONValue { try JSONValue(parsing: text, name: "x.json") }

  private func parse(bytes: [UInt8]) throws -> JSONValue {
    try bytes.withUnsafeBytes { try JSONValue(parsing: $0, name: "x.json") }
  }

  private func message(_ bytes: [UInt8]) -> String? {
    do {
      _ = try parse(bytes: bytes)
      return nil
    } catch let error as SquintError {
      #expect(error.kind == .badData)
      return error.message
    } catch {
      return nil
    }
  }

  private func message(_ text: String) -> String? { message(Array(text.utf8)) }

  @Test func values() throws {
    let value = try parse(
      #" {"a": [1, -2, 3.5, 1e3, true, false, null, 9223372036854775807, 9223372036854775808], "b": {"c": "d"}} "#)
    #expect(value["a"]?[0] == .int(1))
    #expect(value["a"]?[1]?.int == -2)
    #expect(value["a"]?[2]?.double == 3.5)
    #expect(value["a"]?[2]?.int == nil)
    #expect(value["a"]?[3]?.int == 1000)
    #expect(value["a"]?[4]?.bool == true)
    #expect(value["a"]?[5]?.bool == false)
    #expect(value["a"]?[6]?.isNull == true)
    #expect(value["a"]?[7]?.int == Int.max)
    #expect(value["a"]?[8] == .double(9_223_372_036_854_775_808))
    #expect(value["a"]?[8]?.int == nil)
    #expect(value["a"]?[9] == nil)
    #expect(value["b"]?["c"]?.string == "d")
    #expect(value["c"] == nil)
    #expect(value[0] == nil)
    #expect(try parse("[]") == .array([]))
    #expect(try parse("{}").object?.count == 0)
    #expect(try parse("-0") == .int(0))
    #expect(try parse("[1e999, -Infinity, Infinity]")[0]?.double == .infinity)
    #expect(try parse("NaN").double?.isNaN == true)
    #expect(try parse(#"{"a": null}"#)["a"] == nil)
    #expect(try parse(#"{"a": null}"#).object?["a"] == .null)
  }

  @Test func strings() throws {
    #expect(try parse(#""\"\\\/\b\f\n\r\t\u0041\u00e9\ud83d\ude00 é😀""#).string == "\"\\/\u{8}\u{C}\n\r\tAé😀 é😀")
    #expect(try parse(#""\u0000""#).string == "\0")
    #expect(try parse("\"\"").string == "")
    #expect(message(#""\ud800""#)?.contains("surrogate") == true)
    #expect(message(#""\ud800\u0041""#)?.contains("surrogate") == true)
    #expect(message(#""\udc00""#)?.contains("surrogate") == true)
    #expect(message(#""\x41""#)?.contains("escape") == true)
    #expect(message(#""\u12g4""#)?.contains("hexadecimal") == true)
    #expect(message(#""\u12"#)?.contains("hexadecimal") == true)
    #expect(message("\"a\nb\"")?.contains("control character") == true)
    #expect(message(#""abc"#)?.contains("inside a string") == true)
    #expect(message([0x22, 0xFF, 0x22])?.contains("UTF-8") == true)
    #expect(message([0x22, 0x5C, 0x6E, 0xC3, 0x22])?.contains("UTF-8") == true)
    #expect(message([0x22, 0xED, 0xA0, 0x80, 0x22])?.contains("UTF-8") == true)
  }

  /// The Å of Swedish and the sign of the ångström are canonically equivalent, but two tokens of a vocabulary.
  @Test func keysAreComparedByBytes() throws {
    let value = try parse("{\"\u{C5}\": 1, \"\u{212B}\": 2, \"A\u{30A}\": 3}")
    #expect(value.object?.count == 3)
    #expect(value["\u{C5}"]?.int == 1)
    #expect(value["\u{212B}"]?.int == 2)
    #expect(value["A\u{30A}"]?.int == 3)
    #expect(try parse("\"\u{C5}\"") != parse("\"\u{212B}\""))
  }

  @Test func duplicateKeysAndLargeObjects() throws {
    let value = try parse(#"{"a": 1, "b": 2, "a": 3}"#)
    #expect(value["a"]?.int == 3)
    #expect(value.object?.members.map(\.key) == ["a", "b"])
    let keys = (0..<1000).map { "\"key\($0)\": \($0)" }
    let large = try parse("{" + (keys + ["\"key500\": -1"]).joined(separator: ",") + "}")
    #expect(large.object?.count == 1000)
    #expect(large["key999"]?.int == 999)
    #expect(large["key500"]?.int == -1)
    #expect(large["key1000"] == nil)
    #expect(
      try parse("{" + keys.joined(separator: ",") + "}") == parse("{" + keys.reversed().joined(separator: ",") + "}"))
  }

  @Test func errorsNameThePlace() {
    #expect(message("{\n  \"a\": 1,\n  b\n}") == "x.json: line 3, column 3: not valid JSON: expected a key in quotes")
    #expect(message("") == "x.json: line 1, column 1: not valid JSON: the document ends where a value should be")
    #expect(message("[1, 2")?.contains("line 1, column 6: not valid JSON: expected ',' or ']'") == true)
    for text in [
      "[1,]", "{\"a\":1,}", "{\"a\"}", "[1 2]", "01", "1.", "1.e5", "1e", "-", "+1", ".5", "tru", "nul", "nan", "1 2",
      "[", "{", "{\"a\":", "'a'", "[1]]", "\0", "-Inf", "Infinit",
    ] {
      #expect(message(text) != nil, "\(text) is not JSON")
    }
  }

  @Test func depthIsBounded() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }
    _ = try parse(nested(128))
    #expect(message(nested(129))?.contains("nested deeper than 128") == true)
    #expect(message(nested(10_000))?.contains("nested deeper than 128") == true)
    #expect(message(String(repeating: "[", count: 1_000_000))?.contains("nested deeper") == true)
    #expect(message(String(repeating: "{\"a\":", count: 1_000_000))?.contains("nested deeper") == true)
  }

  @Test func files() throws {
    let path = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString).json").path
    #expect { try JSONValue.read(path: path) } throws: { ($0 as? SquintError)?.kind == .noInput }
    try Data("{\"a\": [1]".utf8).write(to: URL(fileURLWithPath: path))
    defer { try? FileManager.default.removeItem(atPath: path) }
    #expect {
      try JSONValue.read(path: path)
    } throws: {
      ($0 as? SquintError) == .badData(path, "line 1, column 10: not valid JSON: expected ',' or '}'")
    }
    #expect { try JSONValue.read(path: "/") } throws: { ($0 as? SquintError)?.kind == .noInput }
    try Data("{\"a\": [1]}".utf8).write(to: URL(fileURLWithPath: path))
    #expect(try JSONValue.read(path: path)["a"]?[0]?.int == 1)
  }

  /// Whatever bytes come, the parser ends with a value or an error.
  @Test func randomBytes() {
    var random = FixtureRandom(seed: 1)
    let document = Array(
      #"{"a": [1, -2.5e3, "x\u00e9\ud83d\ude00é", true, null], "b": {"c": {}, "d": [[]]}, "é": "\n"}"#.utf8)
    for length in 0..<document.count { _ = message(Array(document[..<length])) }
    for _ in 0..<20_000 {
      var bytes = document
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        bytes[Int.random(in: 0..<bytes.count, using: &random)] = UInt8.random(in: 0...255, using: &random)
      }
      _ = message(bytes)
    }
  }
}
