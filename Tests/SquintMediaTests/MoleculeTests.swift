import Foundation
import SquintFile
import SquintMedia
import Testing

/// What tools/fixtures/molecules.py writes.
private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
  .appendingPathComponent("Fixtures/molecules")

private func lines(_ name: String) throws -> [String] {
  try String(contentsOf: folder.appendingPathComponent(name), encoding: .utf8).split(separator: "\n").map(String.init)
}

/// The graph in the fixtures' compact form.
private func compact(_ graph: MoleculeGraph) -> String {
  func point(_ value: Int32) -> String { value == 0 ? "" : ".\(value)" }
  let atoms = graph.atoms.map { "\($0.element)\(point($0.chirality))" }.joined(separator: " ")
  let bonds = stride(from: 0, to: graph.edges.count, by: 2).map { index in
    let edge = graph.edges[index]
    return "\(edge.source) \(edge.target) \(edge.type)\(point(edge.direction))"
  }
  return atoms + "|" + bonds.joined(separator: ",")
}

private func compact(_ text: String) -> String {
  do throws(SquintError) {
    return compact(try MoleculeProcessor.graph(of: Array(text.utf8)))
  } catch {
    return "! \(error.message)"
  }
}

/// The metadata of a model whose `molecule.features` is `features`.
private func metadata(_ features: String?) -> Metadata {
  var metadata = Metadata()
  metadata["molecule.features"] = features.map { .string($0) }
  return metadata
}

private func blocks() throws -> [String] {
  try String(contentsOf: folder.appendingPathComponent("blocks.sdf"), encoding: .utf8)
    .components(separatedBy: "$$$$\n").filter { !$0.isEmpty }
}

/// Random numbers that a seed fixes (SplitMix64).
private struct SplitMix: RandomNumberGenerator {
  var state: UInt64

  mutating func next() -> UInt64 {
    state &+= 0x9E37_79B9_7F4A_7C15
    var z = state
    z = (z ^ (z >> 30)) &* 0xBF58_476D_1CE4_E5B9
    z = (z ^ (z >> 27)) &* 0x94D0_49BB_1331_11EB
    return z ^ (z >> 31)
  }
}

@Suite struct MoleculeTests {
  @Test func smilesAsRDKit() throws {
    let cases = try lines("smiles.tsv")
    #expect(cases.count > 300)
    for line in cases {
      let parts = line.components(separatedBy: "\t")
      try #require(parts.count == 2)
      #expect(compact(parts[0]) == parts[1], "\(parts[0])")
    }
  }

  @Test func filesAsRDKit() throws {
    let expected = try lines("blocks.txt")
    let blocks = try blocks()
    try #require(blocks.count == expected.count && !blocks.isEmpty)
    for (block, graph) in zip(blocks, expected) {
      #expect(compact(block) == graph, "\(block)")
      // Line ends of another system, and what follows in an SDF file, change nothing.
      #expect(compact(block.replacing("\n", with: "\r\n") + "$$$$\r\nmore\r\n") == graph)
    }
  }

  @Test func edgesStandInPairs() throws {
    let graph = try MoleculeProcessor.graph(of: Array("F/C=C/Cl".utf8))
    #expect(graph.atoms.map(\.element) == [8, 5, 5, 16])
    #expect(graph.edges.count == 6)
    for index in stride(from: 0, to: graph.edges.count, by: 2) {
      let (there, back) = (graph.edges[index], graph.edges[index + 1])
      #expect(there.source == back.target && there.target == back.source)
      #expect(there.type == back.type && there.direction == back.direction)
    }
    #expect(graph.edges.map(\.direction) == [1, 1, 0, 0, 1, 1])
  }

  @Test func whatStandsAroundSMILES() {
    let ethanol = compact("CCO")
    for text in [
      "CCO ethanol", "CCO\tethanol", "  CCO\n", "CCO\r\n", "\nCCO\nCCN\n", "CCO |&1:1|", "CCO |a:0,2,o1:1| name",
    ] {
      #expect(compact(text) == ethanol, "\(text)")
    }
  }

  @Test(arguments: [
    ("", "is empty"),
    ("   ", "is empty"),
    ("C1CC", "nothing closes the ring 1 that opens at character 2"),
    ("C1CC12", "nothing closes the ring 2 that opens at character 6"),
    ("C11", "closes at the atom where it opens, at character 3"),
    ("CC1C1C1", "closes with a bond that is there already, at character 5"),
    ("C(C", "no ) closes the branch that begins at character 2"),
    ("CC)C", "a ) that no ( belongs to stands at character 3"),
    ("C()C", ") at character 3, where an atom should stand"),
    ("C=", "ends where an atom should follow"),
    ("C.", "ends where an atom should follow"),
    ("C&C", "& at character 2, where an atom should stand"),
    ("CXC", "X at character 2"),
    ("C[Qq]", "Q at character 3, where an element should stand"),
    ("C[CH3", "ends where the ] of the atom that begins at character 2 should follow"),
    ("[C+++]", "+ at character 5"),
    ("[C@TH3](F)(Cl)Br", "there is no chirality @TH3"),
    ("[#119]", "there is no element 119 at character 3"),
    ("C%1CC", "C at character 4, where a second digit should stand"),
    ("CC(C)(C)(C)C", "the carbon at character 2 has 5 bonds, double ones counted twice; it may have 4"),
    ("CN(C)(C)C", "the nitrogen at character 2 has 4 bonds"),
    ("C[N+](C)(C)(C)C", "with a charge of +1 has 5 bonds"),
    ("FC#F", "the fluorine at character 4 has 3 bonds"),
    ("c1cccc1", "the aromatic ring with the carbon at character 1 cannot be given single and double bonds"),
    ("CcC", "the carbon at character 2 is written as aromatic, and is in no ring"),
    ("N->[Fe]", "no number for the dative bond at character 2"),
    ("[Fe]<-N", "no number for the dative bond at character 5"),
    ("C$C", "no number for the quadruple bond at character 2"),
    ("C~C", "no number for the bond of any kind (~) at character 2"),
    ("F[Pt@SP1](Cl)(Br)I", "the platinum at character 2 is a square planar centre (@SP)"),
    ("F[Co@OH5](F)(Cl)(Cl)(Br)Br", "is an octahedral centre (@OH)"),
    ("F[As@TB1](F)(Cl)(Cl)Br", "is a trigonal bipyramidal centre (@TB)"),
    ("F[C@AL1](Cl)(Br)I", "is the centre of an allene (@AL)"),
    ("c1cc[n](cc1)([Fe])C", "is dative"),
    ("CCO |(0,0,0;1,0,0;2,0,0)|", "the CXSMILES extension (0 at character 6 is not read"),
    ("CC |w:0.0|", "the CXSMILES extension w:0.0"),
    ("CC |a:1", "has no second |"),
    ("[C][=C][Branch1][C][O]", "this looks like SELFIES, which is not read; convert it to SMILES"),
    ("InChI=1S/CH4/h1H4", "this is an InChI, which is not read; convert it to SMILES"),
    ("VNWKTOKETHGBQD-UHFFFAOYSA-N", "this is an InChIKey, from which no molecule can be made; look up its SMILES"),
    ("C\u{E9}C", "\u{E9} (U+00E9, which no SMILES has) at character 2, where an atom should stand"),
    ("CC\u{2013}C", "U+2013, which no SMILES has, at character 3, where an atom should stand"),
  ])
  func refusals(text: String, message: String) {
    let answer = compact(text)
    #expect(answer.hasPrefix("! ") && answer.contains(message), "\(text): \(answer)")
  }

  @Test func refusalsOfFiles() throws {
    let block = "\n  test\n\n  2  1  0  0  0  0            999 V2000\n"
    let atoms = [
      "    0.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0\n",
      "    1.0000    0.0000    0.0000 C   0  0  0  0  0  0  0  0  0  0  0  0\n",
    ]
    #expect(compact(block + atoms[0] + atoms[1] + "  1  2  2  0\nM  END\n") == "5 5|0 1 1")
    for (text, message) in [
      (block + atoms[0] + atoms[1] + "  1  3  1  0\nM  END\n", "line 7: the bond is to an atom that does not exist"),
      (block + atoms[0] + atoms[1] + "  1  1  1  0\nM  END\n", "line 7: the bond is from an atom to itself"),
      (
        block + atoms[0] + atoms[1] + "  1  2  9  0\nM  END\n",
        "line 7: the features of bonds have no number for the dative bond"
      ),
      (block + atoms[0] + atoms[1] + "  1  2  8  0\nM  END\n", "line 7: the bond is a question"),
      (block + atoms[0] + atoms[1] + "  1  2  1  0\n", "before its M  END"),
      (block + atoms[0], "before its M  END"),
      (block + atoms[0] + "         x    0.0000    0.0000 C   0  0\n", "line 6: a coordinate is"),
      (block + atoms[0] + "    1.0000    0.0000    0.0000 Xx  0  0\n", "line 6: there is no element “Xx”"),
      (block + atoms[0] + atoms[1] + "  1  2  1  0\nM  CHG  1   9   1\nM  END\n", "line 8: there is no atom 9"),
      (block + atoms[0] + atoms[1] + "  1  2  1  0\nM  ALS   1  2 F C   N\nM  END\n", "line 8: M  ALS is not read"),
      (
        "\n\n\n  0  0  0  0  0  0            999 V3000\nM  V30 BEGIN CTAB\nM  V30 COUNTS 9999 0 0 0 0\n",
        "the molecule has 9,999 atoms; at most 4,096 are read"
      ),
      ("\n\n\n  0  0  0  0  0  0            999 V2000\nM  END\n", "has no atoms"),
    ] {
      let answer = compact(text)
      #expect(answer.hasPrefix("! ") && answer.contains(message), "\(answer)")
    }
  }

  @Test func depthAndSize() {
    // Branches and rings as deep as the text is long: nothing is recursive.
    let deep = String(repeating: "C(", count: 1000) + "C" + String(repeating: ")", count: 1000)
    #expect(compact(deep).hasPrefix("5 5 5"))
    let most = "C" + String(repeating: ".C", count: 4095)
    #expect(compact(most).hasPrefix("5 5 5"))
    #expect(compact(most + ".C").contains("more than 4,096 atoms"))
    #expect(compact("C" + String(repeating: "=", count: 1 << 16)).contains("at most 65,536 are read"))
    let ring = "C1" + String(repeating: "C", count: 2000) + "1"
    #expect(compact(ring).hasPrefix("5 5 5"))
    let conjugated = "F" + String(repeating: "/C=C", count: 500) + "/F"
    #expect(compact(conjugated).contains("0 1 0.1,1 2 1,2 3 0.1"))
  }

  /// What cannot be read ends in an error of one line, never in a trap.
  @Test func mutations() throws {
    var random = SplitMix(state: 11)
    let alphabet = Array("CNOPSFIBHclnosb[]()=#@/\\1234%0.+-*:se <>|~$".utf8)
    let texts = try lines("smiles.tsv").map { Array($0.utf8.prefix { $0 != 0x09 }) } + blocks().map { Array($0.utf8) }
    var (graphs, refusals) = (0, 0)
    for index in 0..<3000 {
      var bytes = texts[index % texts.count]
      for _ in 0..<Int.random(in: 1...4, using: &random) {
        let place = Int.random(in: 0...bytes.count, using: &random)
        switch Int.random(in: 0...4, using: &random) {
        case 0 where place < bytes.count: bytes.remove(at: place)
        case 1 where place < bytes.count: bytes[place] = UInt8.random(in: 0...255, using: &random)
        case 2 where place < bytes.count: bytes.removeSubrange(place..<min(bytes.count, place + 9))
        case 3: bytes.insert(contentsOf: texts[(index * 7) % texts.count].prefix(9), at: place)
        default: bytes.insert(alphabet[Int.random(in: 0..<alphabet.count, using: &random)], at: place)
        }
      }
      do throws(SquintError) {
        let graph = try MoleculeProcessor.graph(of: bytes)
        let range = 0..<Int32(graph.atoms.count)
        #expect(graph.edges.allSatisfy { range.contains($0.source) && range.contains($0.target) })
        graphs += 1
      } catch {
        #expect(!error.message.contains("\n") && error.kind == .badData)
        refusals += 1
      }
    }
    #expect(graphs > 100 && refusals > 1000)
  }

  @Test func units() throws {
    let processor = try MoleculeProcessor(metadata("chirality"))
    let file = try MediaFile(text: "N[C@@H](C)C(=O)O")
    let cost = try processor.cost(of: file)
    #expect(cost.layout.runs.map(\.shape) == [[6, 10]] && cost.layout.count == 1)
    #expect(cost.layout.byteCount == (6 * 2 + 10 * 4) * 4)
    #expect(cost.notes.isEmpty)
    let units = try #require(try processor.units(of: file, while: { true }))
    let bytes = try #require(units.bytes)
    #expect(bytes.count == cost.layout.byteCount)
    let (shape, numbers) = bytes.withUnsafeBytes { processor.numbers(of: $0, shape: [6, 10]) }
    #expect(shape == [6, 2])
    #expect(numbers == [6, 0, 5, 1, 5, 0, 5, 0, 7, 0, 7, 0])
    let edges = bytes.withUnsafeBytes { bytes in (12..<20).map { bytes.load(fromByteOffset: 4 * $0, as: Int32.self) } }
    #expect(edges == [0, 1, 0, 0, 1, 0, 0, 0])
    #expect(try processor.units(of: file, while: { false }) == nil)
    #expect(try processor.cost(of: MediaFile(text: "CC\nCN")).notes == ["only the first of its molecules is taken"])
  }

  /// What of a text is not taken, or could be meant otherwise, is told.
  @Test(arguments: [
    ("CC\u{E9}", ["\u{E9} (U+00E9, which no SMILES has) at character 3 is left out"]),
    ("CC \u{E9}", []),
    ("[Na+].[Cl-]", []),
    ("[H][H]", []),
    (
      "[C][C][O]",
      [
        "it is taken for SMILES, where atoms in brackets have no hydrogens; this looks like SELFIES, which is not read; "
          + "convert it to SMILES"
      ]
    ),
  ])
  func notes(text: String, notes: [String]) throws {
    #expect(try MoleculeProcessor().cost(of: MediaFile(text: text)).notes == notes)
  }

  /// A file of whatever name is read by what is in it; what is no molecule says so.
  @Test func files() throws {
    let place = FileManager.default.temporaryDirectory.appendingPathComponent("squint-molecules-\(UUID())")
    try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: place) }
    let processor = MoleculeProcessor()
    func file(_ name: String, _ text: String) throws -> MediaFile {
      let path = place.path + "/" + name
      try text.write(toFile: path, atomically: true, encoding: .utf8)
      #expect(MoleculeProcessor.isFileName(path))
      return try MediaFile(path: path, noun: "molecule")
    }
    func message(_ name: String, _ text: String) throws -> String {
      let file = try file(name, text)
      return caught { _ = try processor.cost(of: file) }?.message ?? ""
    }
    let block = try #require(try blocks().first)
    for name in ["m.txt", "x.mdl", "molecule", "m.mol"] {
      #expect(try processor.cost(of: file(name, block)).layout.count == 1)
      #expect(try processor.cost(of: file(name, "CCO\n")).layout.runs[0].shape == [3, 4])
    }
    for name in ["a.txt", "a.mol"] {
      let text = try message(name, "Dear all,\nhere it is\n")
      #expect(text.contains("/\(name): this is no MOL or SDF file"))
      #expect(text.contains("its first line is no SMILES: D at character 1"))
      #expect(try message(name, " \n").contains("/\(name): the file is empty"))
      #expect(try message(name, "InChI=1S/CH4/h1H4\n").hasSuffix("/\(name): \(inchi)"))
    }
    // A text is a file's name only where it is no SMILES.
    for text in ["CCO", "", "m.txt", "nowhere/x.mdl", "C\0", String(repeating: "x", count: 9000)] {
      #expect(!MoleculeProcessor.isFileName(text))
    }
    let missing = caught { _ = try processor.cost(of: MediaFile(text: "nowhere/x.mdl")) }
    #expect(missing?.message.hasSuffix("; nor is there a file of that name") == true)
    let empty = caught { _ = try processor.cost(of: MediaFile(text: "  ")) }
    #expect(empty?.message == "the molecule: the SMILES is empty; give one, such as CCO, or the name of a file")
  }

  private let inchi = "this is an InChI, which is not read; convert it to SMILES"

  /// A conversation is planned for the usual molecule, of 256 atoms: one cost, which is at least what such a molecule takes.
  @Test func usualCost() throws {
    let processor = MoleculeProcessor()
    let costs = processor.costs()
    try #require(costs.count == 1)
    #expect(costs[0].layout.runs.map(\.shape) == [[256, 640]] && costs[0].layout.count == 1)
    #expect(costs[0].layout.byteCount == (256 * 2 + 640 * 4) * 4)
    // Benzene rings in a row: 42 of six atoms, and four atoms more.
    let chain = try processor.cost(of: MediaFile(text: String(repeating: "c1ccc(cc1)", count: 42) + "CCCC"))
    #expect(chain.layout.runs.map(\.shape) == [[256, 594]])
    #expect(costs[0].decodingBytes >= chain.decodingBytes)
  }

  @Test func errorsNameTheMolecule() throws {
    let processor = MoleculeProcessor()
    let short = caught { _ = try processor.cost(of: MediaFile(text: "C1CC")) }
    #expect(short?.message == "C1CC: nothing closes the ring 1 that opens at character 2")
    let long = caught {
      _ = try processor.cost(of: MediaFile(text: String(repeating: "C", count: 500) + "1"))
    }
    #expect((long?.message.utf8.count ?? 999) < 120)
    #expect(throws: SquintError.self) { try MoleculeProcessor(metadata("other")) }
    #expect(throws: SquintError.self) { try MoleculeProcessor(metadata(nil)) }
  }
}
