import Foundation
import SquintFile
import Testing

/// The keys and tensors of graphs, declared once, and what is refused because no graph has it.
@Suite struct SchemaTests {
  // MARK: Keys

  private var llama: LlamaBlueprint {
    var blueprint = LlamaBlueprint()
    blueprint.architecture = "qwen2"
    (blueprint.vocabulary, blueprint.context, blueprint.layers) = (10, 64, 2)
    (blueprint.width, blueprint.ffnWidth) = (8, 12)
    (blueprint.attention.heads, blueprint.attention.kvHeads, blueprint.attention.headWidth) = (4, 2, 2)
    blueprint.normEpsilon = 1e-5
    blueprint.ropeFrequencies = [1]
    blueprint.ropeScaling = "default"
    return blueprint
  }

  private var gemma3: Gemma3Blueprint {
    var blueprint = Gemma3Blueprint()
    blueprint.architecture = "gemma3"
    (blueprint.vocabulary, blueprint.context, blueprint.layers) = (10, 64, 3)
    (blueprint.width, blueprint.ffnWidth) = (8, 12)
    (blueprint.attention.heads, blueprint.attention.kvHeads, blueprint.attention.headWidth) = (2, 1, 4)
    blueprint.normEpsilon = 1e-6
    blueprint.embeddingScale = 2.75
    blueprint.window = 16
    blueprint.windowLayers = [0, 1]
    blueprint.ropeFrequencies = [1, 0.5]
    blueprint.windowRopeFrequencies = [1, 0.25]
    blueprint.ropeScaling = "linear"
    return blueprint
  }

  private var vit: ViTBlueprint {
    var blueprint = ViTBlueprint(module: "encoder.image")
    blueprint.architecture = "clip"
    (blueprint.layers, blueprint.width, blueprint.ffnWidth, blueprint.heads) = (2, 8, 16, 2)
    (blueprint.patch, blueprint.grid) = (2, 3)
    blueprint.positions = .buckets
    blueprint.normEpsilon = 1e-5
    blueprint.activation = .quickGELU
    blueprint.featureLayers = [1, 2]
    blueprint.dropsClass = true
    blueprint.hasClass = true
    return blueprint
  }

  private var mlp: MLPBlueprint {
    var blueprint = MLPBlueprint(module: "projector.image")
    blueprint.widths = [16, 24, 8]
    blueprint.activation = .geluTanh
    blueprint.hasNorm = true
    blueprint.normEpsilon = 1e-6
    return blueprint
  }

  /// Writes the tensors that a file must have, and more, all zero.
  private func file(
    at path: String, _ blueprints: [(module: String, blueprint: any ModuleBlueprint)],
    more: [String: TensorSpecification] = [:], change: (inout Metadata) -> Void = { _ in }
  ) throws -> ModelFile {
    var plan = ModelFilePlan()
    for (module, blueprint) in blueprints {
      switch blueprint {
      case let blueprint as any DecoderBlueprint: blueprint.write(to: &plan.metadata)
      case let blueprint as ViTBlueprint: blueprint.write(to: &plan.metadata)
      case let blueprint as MLPBlueprint: blueprint.write(to: &plan.metadata)
      default: Issue.record("a blueprint that the test does not know")
      }
      var tensors = blueprint.tensors
      if let tensor = more[module] { tensors.append(tensor) }
      plan.modules.append(
        ModelFilePlan.Module(
          name: module, tensors: tensors.map { ModelFilePlan.Tensor(name: $0.name, type: .f32, shape: $0.shape) }))
    }
    change(&plan.metadata)
    let writer = try ModelFileWriter(path: path, plan: plan)
    for (index, tensor) in plan.modules.flatMap(\.tensors).enumerated() {
      let bytes = [UInt8](repeating: 0, count: 4 * tensor.shape.reduce(1, *))
      try bytes.withUnsafeBytes { try writer.append($0, toTensor: index) }
    }
    try writer.finish()
    return try ModelFile(path: path)
  }

  @Test func whatIsWrittenIsRead() throws {
    try withTemporaryFolder { folder in
      let path = folder + "/a.squint"
      let model = try file(at: path, [("encoder.image", vit), ("projector.image", mlp), ("decoder", gemma3)])
      #expect(try Gemma3Blueprint(model.metadata) == gemma3)
      #expect(try ViTBlueprint(model, module: "encoder.image") == vit)
      #expect(try MLPBlueprint(model, module: "projector.image") == mlp)
      #expect(try LlamaBlueprint(file(at: path, [("decoder", llama)]).metadata) == llama)
    }
  }

  @Test func keysAreThoseThatAreWritten() {
    for graph in DecoderGraph.allCases {
      #expect(graph.blueprint.keys.contains("decoder.graph"))
      #expect(graph.blueprint.graph == graph)
    }
    var metadata = Metadata()
    gemma3.write(to: &metadata)
    #expect(Set(metadata.entries.map(\.key)) == Gemma3Blueprint.keys)
    #expect(metadata.entries.first?.key == "decoder.graph")
    metadata = Metadata()
    vit.write(to: &metadata)
    #expect(Set(metadata.entries.map(\.key)) == vit.keys.union(["encoder.image.graph"]))
  }

  // MARK: What is refused

  private func refusal(
    more: [String: TensorSpecification] = [:], _ change: (inout Metadata) -> Void = { _ in }
  ) throws -> SquintError? {
    try withTemporaryFolder { folder in
      let model = try file(
        at: folder + "/a.squint", [("encoder.image", vit), ("projector.image", mlp), ("decoder", llama)], more: more,
        change: change)
      do throws(SquintError) {
        try model.refuseUnknown()
        return nil
      } catch { return error }
    }
  }

  private func expect(_ error: SquintError?, _ parts: String..., location: SourceLocation = #_sourceLocation) {
    #expect(error?.kind == .badData, "\(error?.message ?? "accepted")", sourceLocation: location)
    for part in parts + ["update squint"] {
      #expect(error?.message.contains(part) == true, "\(error?.message ?? "accepted")", sourceLocation: location)
    }
  }

  @Test func wholeFilesAreAccepted() throws {
    #expect(try refusal() == nil)
    // Files from before there was more than one graph do not name it.
    #expect(
      try refusal { for key in ["decoder", "encoder.image", "projector.image"] { $0["\(key).graph"] = nil } } == nil)
  }

  @Test func unknownGraphs() throws {
    expect(try refusal { $0["decoder.graph"] = .string("mamba") }, "decoder.graph", "\"mamba\"", "llama, gemma3")
    expect(try refusal { $0["encoder.image.graph"] = .string("navit") }, "encoder.image.graph", "\"navit\"", "vit")
    expect(try refusal { $0["projector.image.graph"] = .string("qformer") }, "projector.image.graph", "\"qformer\"")
  }

  @Test func tensorsThatNoGraphHas() throws {
    for (module, name) in [
      ("decoder", "decoder.1.attention.sinks"), ("decoder", "decoder.2.attention.norm"),
      ("decoder", "decoder.1.ffn.post_norm"), ("encoder.image", "encoder.image.merger"),
      ("projector.image", "projector.image.2"), ("decoder", "encoder.image.rotary"),
    ] {
      expect(try refusal(more: [module: .vector(name, 4)]), "tensor \(name) is in module \(module)")
    }
  }

  @Test func keysThatAreNeeded() throws {
    func needs(_ names: String...) throws -> SquintError? { try refusal { $0["general.needs"] = .strings(names) } }
    #expect(try needs() == nil)
    #expect(try needs("decoder.window", "encoder.image.drops_class", "projector.image.graph") == nil)
    expect(try needs("decoder.window", "decoder.logit_scale"), "general.needs", "\"decoder.logit_scale\"")
    // What another graph has is not known here.
    expect(try needs("decoder.embedding_scale"), "\"decoder.embedding_scale\"")
    let error = try refusal { $0["general.needs"] = .string("decoder.window") }
    #expect(error?.message.contains("no list of texts") == true)
  }

  @Test func modulesThatAreNotKnown() throws {
    try withTemporaryFolder { folder in
      var plan = ModelFilePlan()
      plan.modules = [ModelFilePlan.Module(name: "talker", tensors: [])]
      try ModelFileWriter(path: folder + "/a.squint", plan: plan).finish()
      let model = try ModelFile(path: folder + "/a.squint")
      do throws(SquintError) {
        try model.refuseUnknown()
        Issue.record("accepted")
      } catch { expect(error, "module talker") }
    }
  }
}

private func withTemporaryFolder<R>(_ body: (String) throws -> R) throws -> R {
  let folder = FileManager.default.temporaryDirectory.appendingPathComponent("squint-schema-\(UUID().uuidString)")
  try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  defer { try? FileManager.default.removeItem(at: folder) }
  return try body(folder.path)
}
