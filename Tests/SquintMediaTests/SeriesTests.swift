import Foundation
import SquintFile
import Testing

import SquintMedia

/// Files of series: what is read of them, and what is refused, with its place.
@Suite struct SeriesTests {
  /// The table in a file of these bytes.
  private func table(_ bytes: some Sequence<UInt8>) throws -> SeriesTable {
    let url = FileManager.default.temporaryDirectory.appendingPathComponent("squint-\(UUID().uuidString)")
    try Data(bytes).write(to: url)
    defer { try? FileManager.default.removeItem(at: url) }
    return try SeriesTable(reading: MediaFile(path: url.path, noun: "series"))
  }

  private func columns(_ text: String) throws -> [[Double]] { try table(text.utf8).columns.map(\.numbers) }

  private func message(_ bytes: some Sequence<UInt8>) -> String? {
    do {
      _ = try table(bytes)
      return nil
    } catch {
      guard let error = error as? SquintError, error.kind == .badData else { return "\(error)" }
      return String(error.message.split(separator: ": ", maxSplits: 1).last ?? "")
    }
  }

  private func message(_ text: String) -> String? { message(text.utf8) }

  // MARK: Text

  @Test func separators() throws {
    let expected = [[1.0, 3, 5], [2, -4, 0.006]]
    for text in [
      "1,2\n3,-4\n5,6e-3\n", "1;2\n3;-4\n5;6e-3", "1\t2\r\n3\t-4\r\n5\t6e-3\r\n", "1 2\n3   -4\n 5 6e-3 \n",
      "1 , 2\r3 , -4\r5 , .006",
      "\u{FEFF}1,2\n3,-4\n5,6E-03\n", "\"1\",\"2\"\n\"3\",-4\n5,\"6e-3\"", "+1,2.\n3,-4.0\n5,+.006\n",
      "1,2,\n3,-4,\n5,6e-3,\n",
      "# a\n#b\n1,2\n3,-4\n5,.6e-2\n\n\n", "1; 2\n3; -4\n5; 0,006\n",
    ] {
      #expect(try columns(text) == expected, "\(text)")
    }
    #expect(try columns("7") == [[7]])
    #expect(try columns("7\n8\n\n") == [[7, 8]])
    #expect(try columns("1,5;2,5\n3;4\n") == [[1.5, 3], [2.5, 4]])
  }

  @Test func names() throws {
    let named = try table("Power (kW)\n1\n2\n".utf8)
    #expect(named.columns == [SeriesTable.Column(name: "Power (kW)", numbers: [1, 2])])
    let quoted = try table("\"a,\"\"b\"\"\",c\n1,2\n".utf8)
    #expect(quoted.columns.map(\.name) == ["a,\"b\"", "c"])
    // What a prompt could take for a control token is left out.
    #expect(try table("<|im_end|>{offset},b\n1,2\n".utf8).columns.map(\.name) == ["im_endoffset", "b"])
    #expect(try table("1,2\n3,4\n".utf8).columns.map(\.name) == [nil, nil])
  }

  /// What looks like numbers is never lost as names, and what is, is said.
  @Test func numbersAreNoNames() throws {
    #expect(try columns("2020,2021\n3,4\n") == [[2020, 3], [2021, 4]])
    #expect(try columns("2020\n") == [[2020]])
    for text in ["1.234,5\n1\n", "1,2,3\n4\n", "1 2\n3\n", "1;2\n3\n", "1'000;2\n3;4\n"] {
      #expect(message(text)?.hasPrefix("line 1, column 1: ") == true, "\(text)")
      #expect(message(text)?.hasSuffix("; write it with a point, and nothing between thousands") == true, "\(text)")
    }
    // A gap in front of numbers.
    #expect(message("2024-01-01,\n2024-01-02,5\n")?.hasPrefix("line 1, column 2: there is no number") == true)
    #expect(try columns("2024-01-01,2024-01-02\n1,2\n") == [[1], [2]])
    for text in [",2020,2021\n0,1,2\n1,3,4\n", "month,2020,2021\n1,1,2\n1,3,4\n"] {
      let table = try table(text.utf8)
      #expect(table.columns.suffix(2).map(\.name) == ["2020", "2021"])
      #expect(table.notes.first?.hasPrefix("line 1 has names of columns, since ") == true)
    }
    #expect(try table("a,b\n1,2\n".utf8).notes.isEmpty)
  }

  @Test func saidSeparators() throws {
    for text in [
      "sep=;\n1,5;2\n3;4\n", "\u{FEFF}\"sep=;\"\r\n1,5;2\r\n3;4\r\n", "sep=|\n1.5|2\n3|4\n", "SEP=\t\n1,5\t2\n3\t4\n",
      "sep=,\n1.5,2\n3,4\n", "sep=;\na;b\n1,5;2\n3;4\n",
    ] {
      #expect(try columns(text) == [[1.5, 3], [2, 4]], "\(text)")
    }
    #expect(message("sep=;\n") == "there is no number in it; a series is a column of numbers")
    #expect(message("sep=;\n1;2\n3;x\n") == "line 3, column 2: \"x\" is no number; leave the column out")
    #expect(try table("sep=a\n1\n".utf8).columns.map(\.name) == ["sep=a"])
  }

  /// Between rows of several columns they mean nothing; of one they are gaps. Separators alone are empty cells.
  @Test func blankLines() throws {
    #expect(try columns("\n\na,b\n\n1,2\n\n \n3,4\n\n") == [[1, 3], [2, 4]])
    #expect(try columns("1\t2\n\n3\t4\n") == [[1, 3], [2, 4]])
    #expect(message("1\n\n3\n")?.hasPrefix("line 2, column 1: there is no number") == true)
    #expect(message("1,2\n,\n3,4\n")?.hasPrefix("line 2, column 1: there is no number") == true)
    #expect(message("a\tb\n\t\n3\t4\n")?.hasPrefix("line 2, column 1 (a): there is no number") == true)
  }

  @Test func moreColumnsThanNames() throws {
    #expect(message("a,b\n1,2,3\n7,8,9\n")?.hasPrefix("line 2 has 3 columns, and line 1 has 2 names") == true)
    #expect(try columns("a,b\n1,2,3\n2,8,9\n") == [[2, 8], [3, 9]])
    #expect(try columns("a,b\n1,2,\n3,4,\n") == [[1, 3], [2, 4]])
    #expect(
      message("a,b\n5,2,3\n7,8,9\n")
        == "line 2 has 3 columns, and line 1 has 2 names; give each a name, or separate columns with ; where the comma stands for a point"
    )
    #expect(message("a;b\n5;2;3;4\n") == "line 2 has 4 columns, and line 1 has 2 names; give each a name")
    #expect(message("Power\n1,5\n2,5\n")?.hasPrefix("line 2 has 2 columns, and line 1 has one name") == true)
    #expect(message("a,b\n1,2\n3,4,5\n")?.hasPrefix("line 3 has 3 columns, and the lines before 2") == true)
  }

  @Test func json() throws {
    for text in ["[1, 2, 3]", "\u{FEFF} \n[[1, 2]]", "{\"a\": [1]}\n", "{\n  \"a\": 1}", "[]", "[-1]"] {
      #expect(message(text)?.hasPrefix("this is JSON; give CSV") == true, "\(text)")
    }
    #expect(try table("[V],[A]\n1,2\n".utf8).columns.map(\.name) == ["V", "A"])
  }

  @Test func timesAndIndices() throws {
    for text in [
      "time,a\n2024-01-01 00:00:00,1\n2024-01-01 00:01:00,2\n", "2024-01-01T00:00:00Z;1\n2024-01-02T00:00:00Z;2\n",
      "date a\n2024-01-01 1\n2024-01-02 2\n", "01/02/2024 10:00,1\n01/02/2024 10:05,2\n", "12:00:00\t1\n12:00:01\t2\n",
      ",a\n0,1\n1,2\n", "timestamp,a\n1700000000,1\n1700000060,2\n", "Unnamed: 0,a\n0,1\n1,2\n",
      "2024-01-01 10:00 1\n2024-01-01 11:00 2\n",
    ] {
      let table = try table(text.utf8)
      #expect(table.columns.map(\.numbers) == [[1, 2]], "\(text)")
      #expect(table.notes.count >= 1)
    }
    // A time that does not rise is measured, and a single column is what there is.
    #expect(try columns("time,a\n3,1\n2,2\n") == [[3, 2], [1, 2]])
    #expect(try columns("time\n1\n2\n") == [[1, 2]])
  }

  @Test func gaps() throws {
    #expect(try columns("a,b\n1,2\n3,\n4,nan\n") == [[1, 3, 4], [2]])
    #expect(try columns("a,b\n1,2\n3\n4\n") == [[1, 3, 4], [2]])
    #expect(
      message("a,b\n1,2\n3,\n4,5\n")
        == "line 3, column 2 (b): there is no number (it is empty), and more follow; fill the gap, or leave the column out"
    )
    #expect(message("1\nNaN\n3\n")?.hasPrefix("line 2, column 1: there is no number (NaN)") == true)
    #expect(message("nan\n1\n")?.hasPrefix("line 1, column 1: there is no number (nan)") == true)
    #expect(message("inf\n1\n") == "line 1, column 1: \"inf\" is not finite")
    #expect(try columns("a\n\n1\n2\n") == [[1, 2]])
    #expect(message("1\n\n3\n")?.hasPrefix("line 2, column 1: there is no number") == true)
    #expect(message("a,b\n1,\n2,\n") == "column 2 (b) has no numbers; leave it out")
  }

  @Test func refusedText() {
    #expect(message("") == "the file is empty; a series is a column of numbers")
    #expect(message("\n \n") == "there is no number in it; a series is a column of numbers")
    #expect(message("city,t\nParis,1\n") == "line 2, column 1 (city): \"Paris\" is no number; leave the column out")
    #expect(message("1\n2\nx\n") == "line 3, column 1: \"x\" is no number; leave the column out")
    #expect(message("1\ninf\n") == "line 2, column 1: \"inf\" is not finite")
    #expect(message("1\n1e999\n") == "line 2, column 1: \"1e999\" is not finite")
    #expect(message("1,2\n3,4,5\n")?.hasPrefix("line 2 has 3 columns, and the lines before 2") == true)
    #expect(message("1;2,5\n3;4.5\n") == "line 2, column 2: \"4.5\" has another decimal mark than line 1 has")
    #expect(message("a\n\"1\n2\n") == "line 2, column 1: a quote is not closed in its line")
    #expect(message("a\n\"1\"2\n") == "line 2, column 1: there is text behind a quote")
    #expect(message("1\n0x10\n") == "line 2, column 1: \"0x10\" is no number; leave the column out")
    #expect(message("names\n") == "there are names in line 1, and no numbers")
    #expect(message([0x31, 0x0A, 0x00, 0x32])?.hasPrefix("there is a zero byte at offset 2") == true)
    #expect(message([0xFF, 0xFE, 0x31, 0x00])?.hasPrefix("this is text in UTF-16") == true)
    #expect(message([0x50, 0x4B, 0x03, 0x04])?.hasPrefix("this is an archive") == true)
    #expect(message(String(repeating: "1,", count: 2000))?.contains("more than 1,024 columns") == true)
    #expect(message(String(repeating: "1", count: 2 << 20))?.contains("longer than 1,048,576 bytes") == true)
  }

  /// Random bytes, and texts that are spoiled in one place, never do more than fail.
  @Test func hostile() {
    var generator = SystemRandomNumberGenerator()
    let texts = ["time,a,b\n2024-01-01,1.5,2e3\n2024-01-02,-7,.5\n", "1;2,5\r\n3;\"4\"\r\n", "a b\n1 2\n3 4\n"]
    let array = npy("<f8", "(2, 2)", (0..<32).map { UInt8($0) })
    for round in 0..<600 {
      var bytes = round % 4 == 3 ? array : Array(texts[round % 4 % 3].utf8)
      for _ in 0..<Int.random(in: 1...4, using: &generator) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0..<3, using: &generator) {
        case 0: bytes[place] = UInt8.random(in: 0...255, using: &generator)
        case 1: bytes.insert(UInt8.random(in: 0...255, using: &generator), at: place)
        default: bytes.remove(at: place)
        }
      }
      if let table = try? table(bytes) {
        #expect(table.columns.allSatisfy { !$0.numbers.isEmpty && $0.numbers.allSatisfy(\.isFinite) })
      }
    }
  }

  // MARK: NumPy

  private func npy(_ descr: String, _ shape: String, fortran: Bool = false, version: UInt8 = 1, _ data: [UInt8])
    -> [UInt8]
  {
    npy(
      header: "{'descr': '\(descr)', 'fortran_order': \(fortran ? "True" : "False"), 'shape': \(shape), }",
      version: version, data)
  }

  private func npy(header: String, version: UInt8 = 1, _ data: [UInt8]) -> [UInt8] {
    let header = Array(header.utf8) + Array(repeating: 0x20, count: 63 - (header.utf8.count + 10) % 64) + [0x0A]
    let count = header.count
    let length =
      version == 1 ? [UInt8(count & 255), UInt8(count >> 8)] : [UInt8(count & 255), UInt8(count >> 8), 0, 0]
    let magic: [UInt8] = [0x93] + Array("NUMPY".utf8)
    return magic + [version, 0] + length + header + data
  }

  private func bytes<T>(_ values: [T]) -> [UInt8] { values.withUnsafeBytes { Array($0) } }

  @Test func arrays() throws {
    let numbers = [1.0, -2.5, 3e9, 0.125, 7, -8]
    let big = bytes(numbers.map(\.bitPattern.bigEndian))
    let half: [UInt16] = [0x3C00, 0xC100, 0x7BFF, 0x0001]
    #expect(try table(npy("<f8", "(6,)", bytes(numbers))).columns.map(\.numbers) == [numbers])
    #expect(try table(npy(">f8", "(6, 1)", version: 2, big)).columns.map(\.numbers) == [numbers])
    #expect(
      try table(npy("<f8", "(3, 2)", bytes(numbers))).columns.map(\.numbers) == [[1, 3e9, 7], [-2.5, 0.125, -8]])
    #expect(
      try table(npy("<f8", "(3, 2)", fortran: true, version: 3, bytes(numbers))).columns.map(\.numbers) == [
        [1, -2.5, 3e9], [0.125, 7, -8],
      ])
    #expect(try table(npy("<f2", "(4,)", bytes(half))).columns.map(\.numbers) == [[1, -2.5, 65504, 0x1p-24]])
    #expect(try table(npy(">i2", "(2,)", [0xFF, 0xFE, 0x01, 0x00])).columns.map(\.numbers) == [[-2, 256]])
    #expect(try table(npy("|u1", "(3,)", [0, 128, 255])).columns.map(\.numbers) == [[0, 128, 255]])
    #expect(try table(npy("<i8", "(2,)", bytes([Int64.min, -1]))).columns.map(\.numbers) == [[-0x1p63, -1]])
    #expect(try table(npy("<u8", "(1,)", bytes([UInt64.max]))).columns.map(\.numbers) == [[0x1p64]])
    let single = try table(npy("<f4", "(2,)", bytes([Float(0.1), 2])))
    #expect(single.isSingle && single.columns.map(\.numbers) == [[Double(Float(0.1)), 2]])
    // Behind the end of a channel there may be nothing.
    #expect(try table(npy("<f8", "(2, 2)", bytes([1, 2, 3, .nan]))).columns.map(\.numbers) == [[1, 3], [2]])
  }

  @Test func refusedArrays() {
    let two = bytes([1.0, 2.0])
    #expect(message(npy("<f8", "(3,)", two))?.contains("24 bytes of numbers, and 16 are there") == true)
    #expect(message(npy("<f8", "(1,)", two))?.contains("8 bytes of numbers, and 16 are there") == true)
    #expect(message(npy("<f8", "()", two))?.hasPrefix("an array of 0 axes is no series") == true)
    #expect(message(npy("<f8", "(1, 1, 2)", two))?.hasPrefix("an array of 3 axes is no series") == true)
    #expect(message(npy("<f8", "(0,)", [])) == "the array is empty")
    #expect(message(npy("<f8", "(2, 5000)", []))?.contains("transpose it") == true)
    #expect(message(npy("<f8", "(9223372036854775807, 2)", two))?.hasPrefix("more than 2,097,152 numbers") == true)
    #expect(message(npy("<f8", "(99999999999999999999,)", two))?.hasPrefix("its NumPy header is not what") == true)
    for type in ["|O", "<c8", "<U4", "|b1", "<f16", "<f3", "f8", "|i4", "<M8"] {
      #expect(message(npy(type, "(2,)", two))?.hasPrefix("its numbers are of type") == true, "\(type)")
    }
    for header in [
      "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (2,)}",
      "{'descr': '<f8', 'fortran_order': 0, 'shape': (2,)}",
      "{'descr': '<f8', 'shape': (2,)}", "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (2,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (-2,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (2,)} x", "{", "",
    ] {
      #expect(message(npy(header: header, two))?.hasPrefix("its NumPy header is not what") == true, "\(header)")
    }
    #expect(message([0x93] + Array("NUMPY".utf8))?.hasPrefix("its NumPy header is of a version") == true)
    #expect(
      message([0x93] + Array("NUMPY".utf8) + [1, 0, 0xFF, 0xFF])?.hasPrefix("the file ends in its NumPy header") == true
    )
    #expect(message(npy("<f8", "(2,)", bytes([.nan, 1.0])))?.hasPrefix("point 1 is not a number") == true)
    #expect(message(npy("<f8", "(2,)", bytes([1.0, .infinity]))) == "point 2 is not finite")
  }

  // MARK: Numbers

  /// The nearest double, as `strtod` finds it.
  @Test func decimals() {
    var generator = SystemRandomNumberGenerator()
    for _ in 0..<5000 {
      let value = Double(bitPattern: UInt64.random(in: 0...UInt64.max, using: &generator))
      guard value.isFinite else { continue }
      for text in [
        "\(value)", String(format: "%.3e", value), String(format: "%.20g", value),
        String(format: "%.4f", value / 1e290),
      ] {
        #expect(
          DecimalNumber.value(of: Array(text.utf8), mark: UInt8(ascii: "."))?.bitPattern
            == strtod(text, nil).bitPattern, "\(text)")
      }
    }
    for text in ["", "+", ".", "-.", "e5", "1e", "1e+", "1 2", "1..2", "1.2.3", "--1", "1_0", "0x1", "nan", "١"] {
      #expect(DecimalNumber.value(of: Array(text.utf8), mark: UInt8(ascii: ".")) == nil, "\(text)")
    }
    #expect(DecimalNumber.value(of: Array("1e99999999999999999999".utf8), mark: UInt8(ascii: ".")) == .infinity)
    #expect(DecimalNumber.value(of: Array("1,25".utf8), mark: UInt8(ascii: ",")) == 1.25)
  }

  /// As C's `%.4f` writes them.
  @Test func fourDigits() {
    var generator = SystemRandomNumberGenerator()
    var values = [
      0, -0.0, 0.00005, 0.00015, 0.12345, 2.5, 1e15, 1e16, 1e22, 1e23, .greatestFiniteMagnitude, 0x1p53, 0x1p53 - 1,
      0.99995, 9.99995,
    ]
    for _ in 0..<5000 {
      let value = Double(bitPattern: UInt64.random(in: 0...UInt64.max, using: &generator))
      if value.isFinite { values.append(value) }
      values.append(Double.random(in: -1000...1000, using: &generator))
      // Halves of the last digit, and what is next to them.
      let tie = Double(Int.random(in: 0..<1 << 40, using: &generator)) / 32 / 625
      values += [tie, tie.nextUp, tie.nextDown, Double(Int.random(in: 0..<100_000, using: &generator)) / 32]
    }
    for value in values {
      #expect(FixedPoint.four(value) == String(format: "%.4f", value), "\(value)")
      #expect(FixedPoint.four(-value) == String(format: "%.4f", -value), "\(-value)")
    }
  }

  // MARK: The processor

  private func metadata(_ normalization: String, _ most: Int64 = 100) -> Metadata {
    var metadata = Metadata()
    metadata["series.normalization"] = .string(normalization)
    metadata["series.most_points"] = .int(most)
    return metadata
  }

  @Test func settings() throws {
    #expect(throws: SquintError.self) { try SeriesProcessor(Metadata()) }
    #expect(throws: SquintError.self) { try SeriesProcessor(metadata("min_max")) }
    #expect(throws: SquintError.self) { try SeriesProcessor(metadata("z_score", 0)) }
    let processor = try SeriesProcessor(metadata("z_score"))
    #expect(processor.rounding == .none && processor.mostPoints == 100)
    #expect(throws: SquintError.self) { try processor.choosing(rate: 0) }
    // 160 / (1 + e^-2.5)^6, 160 / 2^6, and at most 160.
    #expect(SeriesProcessor.stride(rate: 250) == 99)
    #expect(SeriesProcessor.stride(rate: 1e-9) == 2)
    #expect(SeriesProcessor.stride(rate: 1e9) == 160)
  }

  /// numpy.sum of 1, 1/2, … 1/1000 (NumPy 2.4): one after the other they give another number.
  @Test func sums() {
    let numbers = (1...1000).map { 1 / Double($0) }
    #expect(SeriesProcessor.sum(numbers[...]) == 7.485470860550345)
    #expect(SeriesProcessor.sum(numbers.map { Float($0) }[...]) == Float(7.485471725463867))
    #expect(numbers.reduce(0, +) != 7.485470860550345)
  }
}
