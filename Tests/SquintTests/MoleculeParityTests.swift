import Foundation
import Squint
import SquintCompute
import SquintConversion
import SquintFile
import SquintMedia
import SquintModels
import Testing

/// InstructMol from SMILES to logits beside its computation in PyTorch (tools/oracle/instructmol.py), on the tiny models of
/// tools/fixtures/molecules_models.py.
@Suite struct MoleculeParityTests {
  /// The graph network alone, fed what RDKit says of each molecule, with room for no more than needed and weights that do not stay.
  @Test(arguments: ["parts", "mlp"]) func features(_ name: String) throws {
    let fixture = MoleculeFixture(name)
    let (path, folder) = try fixture.convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    let file = try ModelFile(path: path)
    for test in try fixture.cases() {
      let expected = try numpyNumbers(fixture.file("\(test.name).features.npy"))
      for (threads, keeping) in [(1, Int.max), (2, 0)] {
        var ours: [Float] = []
        for graph in test.graphs { ours += try Self.features(of: graph, file, threads: threads, keeping: keeping) }
        #expect(ours.count == expected.count)
        // Sums in another order; what is not normalized grows from layer to layer.
        let size = expected.map(abs).max() ?? 1
        #expect(largestDifference(ours, expected) < 2e-6 * size, "\(test.name)")
      }
    }
  }

  /// Features of one molecule [atoms, width]; units of two passes and two of one pass must be the same.
  private static func features(
    of graph: MoleculeFixture.Graph, _ file: ModelFile, threads: Int, keeping bytes: Int
  ) throws -> [Float] {
    let model = try encoderModel(of: file, module: "encoder.molecule", levels: [])
    let shape = [graph.atoms.count, graph.edges.count]
    var plan = ArenaPlan()
    let make = try model.reserve(
      Residency(units: model.streamUnits, keepingAtMost: bytes), shapes: [shape], units: 2, threads: threads, in: &plan)
    let arena = try Arena(plan)
    let compute = Compute(kernels: try Kernels.best(), workers: try Workers(count: threads))
    let encoder = try make(DirectReader(file), arena, compute)
    let numbers = (graph.atoms + graph.edges).flatMap { $0 }.map { Int32($0) }
    var features: [[Float]] = []
    _ = try (numbers + numbers).withUnsafeBytes { bytes in
      try encoder.encode(bytes.baseAddress!, count: 2, shape: shape, while: { true }) { (_, rows) throws(SquintError) in
        features.append(Array(UnsafeBufferPointer(start: rows.data, count: shape[0] * rows.width)))
      }
    }
    #expect(features[0] == features[1])
    return features[0]
  }

  /// Numbers that no table has, and edges to atoms that are not there, are refused by name.
  @Test func hostileGraphs() throws {
    let (path, folder) = try MoleculeFixture("mlp").convert(.f32)
    defer { withExtendedLifetime(folder) {} }
    let file = try ModelFile(path: path)
    let good = MoleculeFixture.Graph(atoms: [[5, 0], [6, 1]], edges: [[0, 1, 0, 0], [1, 0, 0, 0]])
    _ = try Self.features(of: good, file, threads: 1, keeping: .max)
    for (row, column, value, message) in [
      (0, 0, 119, "the element number of atom 1 is 119, and the model has 0 to 118"),
      (1, 1, 5, "the chirality of atom 2"),
      (1, 0, -1, "element number of atom 2 is -1"), (2, 0, 2, "the source of edge 1 is 2, and the model has 0 to 1"),
      (3, 1, -2, "the target of edge 2"), (2, 2, 5, "the type of edge 1"), (3, 3, 6, "the direction of edge 2"),
    ] {
      var (atoms, edges) = (good.atoms, good.edges)
      if row < 2 { atoms[row][column] = value } else { edges[row - 2][column] = value }
      let error = caught {
        _ = try Self.features(of: .init(atoms: atoms, edges: edges), file, threads: 1, keeping: .max)
      }
      #expect(error?.message.contains(message) == true, "\(error?.message ?? "none")")
    }
    let model = try encoderModel(of: file, module: "encoder.molecule", levels: [])
    for shape in [[0, 0], [3], [1 << 24, 0], [1, 1 << 24], [2, -1]] {
      #expect(caught { _ = try model.grid(of: shape) } != nil)
    }
    // Many edges take the room of more atoms.
    #expect(model.holds([2, 8], patches: 2) && !model.holds([2, 9], patches: 2) && !model.holds([3, 0], patches: 2))
  }

  /// From SMILES to the logits of every position, however the prompt is cut, with the prompt in the reference's words.
  @Test(arguments: ["parts", "mlp"]) func f32(_ name: String) throws {
    let fixture = MoleculeFixture(name)
    let model = try fixture.model(.f32)
    for test in try fixture.cases() {
      let molecules = try test.smiles.map { try model.medium(.molecule, $0) }
      #expect(molecules.map(\.rows) == test.graphs.map(\.atoms.count))
      let expected = try numpyRows(fixture.file("\(test.name).logits.npy").path)
      let ids = try fixture.ids(test)
      for text in [test.prompt, test.prompt.replacing("<image>", with: "<molecule>")] {
        let prompt = try model.prompt(text: text, media: molecules)
        #expect(prompt.count == ids.count)
        for (ours, theirs) in zip(prompt.tokens, ids) {
          #expect(ours == theirs || ours == Prompt.featureToken && theirs == -1)
        }
        for (threads, chunk) in [(1, 128), (2, 7)] {
          let options = SessionOptions(
            kvType: .f32, threads: threads, chunk: chunk, media: .once(molecules.map(\.size)))
          let ours = try logits(model, prompt, options)
          #expect(ours.count == expected.count)
          #expect(largestDifference(ours.flatMap { $0 }, expected.flatMap { $0 }) < 1e-4, "\(test.name), \(chunk)")
        }
      }
    }
  }

  /// What is saved whole is the model of the parts, up to the rounding of what it is saved in; so are the parts wherever they lie.
  @Test func mergedIsTheSame() throws {
    let parts = MoleculeFixture("parts")
    let reference = try parts.model(.f32)
    let merged = try MoleculeFixture("merged").model(.f32)
    var published = ConversionSources(parts.path("adapter"), decoder: parts.path("decoder"))
    published.encoders["molecule"] = parts.path("molecule_model.safetensors")
    let (path, folder) = try MoleculeFixture.convert(published, .f32)
    defer { withExtendedLifetime(folder) {} }
    let elsewhere = try Model(path: path)
    let test = try parts.cases()[0]
    func ours(_ model: Model) throws -> [[Float]] {
      let molecules = try test.smiles.map { try model.medium(.molecule, $0) }
      return try logits(
        model, model.prompt(text: test.prompt, media: molecules),
        SessionOptions(kvType: .f32, threads: 1, media: .once(molecules.map(\.size))))
    }
    let expected = try ours(reference)
    #expect(try ours(elsewhere) == expected)
    let rounded = try ours(merged)
    #expect(zip(rounded, expected).map(cosine).min()! > 0.9999)
    #expect(largestDifference(rounded.flatMap { $0 }, expected.flatMap { $0 }) < 0.05)
    // Without what was trained beside the adapter it is another model.
    let untrained = ConversionSources(
      decoder: parts.path("decoder"), encoders: ["molecule": parts.path("molecule_model.safetensors")],
      projectors: ["molecule": parts.path("adapter/non_lora_trainables.safetensors")])
    let (other, otherFolder) = try MoleculeFixture.convert(untrained, .f32)
    defer { withExtendedLifetime(otherFolder) {} }
    let alone = try Model(path: other)
    let molecules = try test.smiles.map { try alone.medium(.molecule, $0) }
    let prompt = try alone.prompt(text: test.prompt.replacing("<image>", with: "<molecule>"), media: molecules)
    let differing = try logits(
      alone, prompt, SessionOptions(kvType: .f32, threads: 1, media: .once(molecules.map(\.size))))
    #expect(largestDifference(differing.flatMap { $0 }, expected.flatMap { $0 }) > 0.5)
  }

  /// Budgets and threads change no bit.
  @Test(arguments: [ElementType.f32, .int8]) func answersAreTheSame(_ type: ElementType) throws {
    let fixture = MoleculeFixture("mlp")
    let model = try fixture.model(type)
    let test = try fixture.cases()[0]
    let molecules = try test.smiles.map { try model.medium(.molecule, $0) }
    let prompt = try model.prompt(text: test.prompt, media: molecules)
    func options(_ threads: Int) -> SessionOptions {
      SessionOptions(threads: threads, chunk: 16, media: .once(molecules.map(\.size)))
    }
    let expected = try logits(model, prompt, options(1))
    for (threads, bytes) in [(2, Int.max), (3, 0), (1, 20_000)] {
      let session = try Session(model, SessionPlan(model, options(threads), keeping: bytes, rows: 16, units: 1))
      try session.append(prompt)
      var ours: [[Float]] = []
      try session.forEachLogits { (_, logits) throws(SquintError) in ours.append(Array(logits)) }
      #expect(ours == expected, "\(threads) threads, \(bytes) bytes stay")
    }
  }

  /// Rows of 20 and 40 columns are padded to groups of 32. These weights are far larger than trained ones (see VisionParityTests).
  @Test(arguments: [(ElementType.int8, 0.995), (.int4, 0.8)]) func quantized(_ type: ElementType, _ least: Double)
    throws
  {
    for name in ["parts", "mlp"] {
      let fixture = MoleculeFixture(name)
      let model = try fixture.model(type)
      for test in try fixture.cases() {
        let molecules = try test.smiles.map { try model.medium(.molecule, $0) }
        let prompt = try model.prompt(text: test.prompt, media: molecules)
        let ours = try logits(model, prompt, SessionOptions(threads: 1, media: .once(molecules.map(\.size))))
        let expected = try numpyRows(fixture.file("\(test.name).logits.npy").path)
        let cosines = zip(ours, expected).map(cosine)
        #expect(cosines.reduce(0, +) / Double(cosines.count) > least, "\(name) \(test.name)")
      }
    }
  }

  /// Vicuna's conversation, as it was trained: the molecule goes before the question; of several each stands where it was put.
  @Test func conversation() throws {
    let model = try MoleculeFixture("mlp").model(.f32)
    let system =
      "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and "
      + "polite answers to the user's questions. "
    func tokens(_ question: String, _ smiles: [String]) throws -> [Int32] {
      let molecules = try smiles.map { try model.medium(.molecule, $0) }
      return try model.prompt([ChatMessage(role: "user", question, media: molecules)], media: molecules).tokens
    }
    func raw(_ text: String, _ smiles: [String]) throws -> [Int32] {
      try model.prompt(text: text, media: smiles.map { try model.medium(.molecule, $0) }).tokens
    }
    for question in ["Describe it.", "<molecule>\nDescribe it.", "Describe it.<molecule>"] {
      #expect(
        try tokens(question, ["CCO"]) == raw("\(system)USER: <image>\nDescribe it. ASSISTANT:", ["CCO"]), "\(question)")
    }
    #expect(
      try tokens("Is <molecule> or <molecule> larger?", ["CCO", "C"])
        == raw("\(system)USER: Is <image> or <image> larger? ASSISTANT:", ["CCO", "C"]))
    #expect(
      try tokens("Which?", ["CCO", "C"]) == raw("\(system)USER: <image>\n<image>\nWhich? ASSISTANT:", ["CCO", "C"]))
    // Its own prompts say <image>; what people write is for molecules.
    #expect(
      caught { _ = try tokens("What is <image>?", ["CCO"]) }?.message
        == "the prompt has <image>, the place of an image, and what is given is a molecule; write <molecule> where it goes, "
        + "or write \\<image> for the word")
    #expect(
      caught { _ = try tokens("What are <molecule> and <image>?", ["CCO"]) }?.message
        == "the prompt has <image>, the place of an image, and none is given; give one if the model takes images, or write "
        + "\\<image> for the word")
    // What somebody writes is no place.
    #expect(try tokens("<molecule>\nIs \\<image> a word?", ["CCO"]).count { $0 == Prompt.featureToken } == 3)
  }

  /// A conversation, in which molecules are still to come, is planned for the usual one, and takes those that are no larger.
  @Test func conversationsArePlanned() throws {
    let model = try MoleculeFixture("mlp").model(.f32)
    #expect(try model.sizes(of: .molecule).map(\.rows) == [256])
    let session = try Session(model, SessionOptions(context: 512, kvType: .f32, threads: 1, media: .always))
    for smiles in ["CCO", String(repeating: "c1ccc(cc1)", count: 42) + "CCCC"] {
      let molecule = try model.medium(.molecule, smiles)
      try session.check(molecule)
      try session.replace(with: model.prompt(text: "<molecule>", media: [molecule]))
      try session.forEachLogits { _, _ in }
    }
  }

  /// What lacks a part says which, and pickles are named with what converts them.
  @Test func missingParts() throws {
    let fixture = MoleculeFixture("parts")
    let folder = try TemporaryFolder()
    let path = folder.path + "/published"
    try FileManager.default.copyItem(atPath: fixture.path("adapter"), toPath: path)
    func message(_ sources: ConversionSources) -> String {
      caught { _ = try planConversion(sources) }?.message ?? ""
    }
    #expect(message(ConversionSources(path)).contains("no decoder"))
    let sources = ConversionSources(path, decoder: fixture.path("decoder"))
    #expect(message(sources).contains("molecule_model.pth with tools/pickle-to-safetensors"))
    try FileManager.default.copyItem(
      atPath: fixture.path("molecule_model.safetensors"), toPath: path + "/molecule_model.safetensors")
    #expect(message(sources) == "")
    for name in ["adapter_model", "non_lora_trainables", "molecule_model"] {
      try FileManager.default.moveItem(atPath: "\(path)/\(name).safetensors", toPath: "\(path)/\(name).bin")
      #expect(message(sources).contains("\(name).bin: this is a pickle"), "\(name)")
      #expect(message(sources).contains("tools/pickle-to-safetensors"), "\(name)")
      try FileManager.default.moveItem(atPath: "\(path)/\(name).bin", toPath: "\(path)/\(name).safetensors")
    }
    let config = try String(contentsOfFile: path + "/config.json", encoding: .utf8)
    try config.replacing("\"moleculestm\"", with: "\"graphmvp\"").write(
      toFile: path + "/config.json", atomically: true, encoding: .utf8)
    #expect(message(sources).contains("mm_graph_tower \"graphmvp\" is not supported"))
    try config.replacing("{\n", with: "{\n\"gin_num_layers\": 5,\n", maxReplacements: 1).write(
      toFile: path + "/config.json", atomically: true, encoding: .utf8)
    #expect(message(sources).contains("gin_num_layers is 5, but 3 are in"))
  }
}

/// A folder of Tests/Fixtures/molecules.
struct MoleculeFixture {
  struct Graph: Decodable, Sendable {
    let atoms: [[Int]]
    let edges: [[Int]]
  }

  struct Case: Decodable, Sendable {
    let name: String
    let smiles: [String]
    let prompt: String
    let graphs: [Graph]
  }

  let name: String

  init(_ name: String) { self.name = name }

  func path(_ part: String) -> String { file(part).path }
  func file(_ name: String) -> URL { fixtures.appendingPathComponent("molecules/\(self.name)/\(name)") }
  func cases() throws -> [Case] { try JSONDecoder().decode([Case].self, from: Data(contentsOf: file("cases.json"))) }
  func ids(_ test: Case) throws -> [Int32] {
    try JSONDecoder().decode([Int32].self, from: Data(contentsOf: file("\(test.name).ids.json")))
  }

  /// Converts it with all parts in `type`. The file is there as long as the folder.
  func convert(_ type: ElementType) throws -> (path: String, TemporaryFolder) {
    try Self.convert(ConversionSources(fixtures.appendingPathComponent("molecules/\(name)").path), type)
  }

  static func convert(_ sources: ConversionSources, _ type: ElementType) throws -> (path: String, TemporaryFolder) {
    let folder = try TemporaryFolder()
    var options = ConversionOptions()
    options.type = type
    options.jobs = 1
    try SquintConversion.convert(sources, to: folder.path + "/model.squint", options: options)
    return (folder.path + "/model.squint", folder)
  }

  /// The mapping outlives the file.
  func model(_ type: ElementType) throws -> Model {
    let (path, folder) = try convert(type)
    defer { withExtendedLifetime(folder) {} }
    return try Model(path: path)
  }
}
