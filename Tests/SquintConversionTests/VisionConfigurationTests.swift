import Foundation
import SquintConversion
import SquintFile
import Testing

/// What configurations say, against transformers, and what is wrong in them.
@Suite struct VisionConfigurationTests {
  private func cases(_ key: String) throws -> [JSONValue] {
    let json = try JSONValue.read(path: ConverterFixture.file("vision_configurations.json"))
    return try #require(json[key]?.array)
  }

  @Test func towersAreWhatTransformersMakesOfThem() throws {
    let cases = try cases("towers")
    #expect(cases.count == 12)
    for item in cases {
      let name = try #require(item["name"]?.string)
      let json = try #require(item["config"])
      let config = try EncoderConfiguration(huggingFace: json, place: name)
      #expect(config.width == item["width"]?.int, "\(name)")
      #expect(config.ffnWidth == item["ffn_width"]?.int, "\(name)")
      #expect(config.sourceLayers == item["layers"]?.int, "\(name)")
      #expect(config.heads == item["heads"]?.int, "\(name)")
      #expect(config.patch == item["patch"]?.int, "\(name)")
      #expect(config.grid == item["grid"]?.int, "\(name)")
      #expect(config.normEpsilon == item["norm_epsilon"]?.double, "\(name)")
      #expect(config.activation == item["activation"]?.string.flatMap(Activation.init(huggingFace:)), "\(name)")
      #expect((config.optionals.queryKeyValueBias == .required) == item["qkv_bias"]?.bool, "\(name)")
    }
  }

  @Test func imagesAreWhatTransformersMakesOfThem() throws {
    let cases = try cases("images")
    #expect(cases.count == 21)
    for item in cases {
      let name = try #require(item["name"]?.string)
      let config = try ImageConfiguration(huggingFace: try #require(item["config"]), place: name)
      func size(_ key: String) -> ImageConfiguration.Size? {
        guard let height = item[key]?["height"]?.int, let width = item[key]?["width"]?.int else { return nil }
        return ImageConfiguration.Size(height: height, width: width)
      }
      let edges = item["size"]
      let resize: ImageConfiguration.Resize =
        if item["do_resize"]?.bool == false {
          .none
        } else if let exact = size("size") {
          .exact(height: exact.height, width: exact.width)
        } else if let side = edges?["shortest_edge"]?.int {
          .shortestEdge(side)
        } else {
          .longestEdge(edges?["longest_edge"]?.int ?? 0)
        }
      #expect(config.resize == resize, "\(name)")
      #expect(config.crop == (item["do_center_crop"]?.bool == true ? size("crop_size") : nil), "\(name)")
      #expect(config.filter == item["resample"]?.int.flatMap(ImageConfiguration.Filter.init(pillow:)), "\(name)")
      #expect(config.rescale == (item["do_rescale"]?.bool == true ? item["rescale_factor"]?.double : 1), "\(name)")
      let normalizes = item["do_normalize"]?.bool == true
      #expect(config.mean == (normalizes ? item["mean"]?.array?.compactMap(\.double) : [0, 0, 0]), "\(name)")
      #expect(config.std == (normalizes ? item["std"]?.array?.compactMap(\.double) : [1, 1, 1]), "\(name)")
      #expect((config.squareBackground != nil) == item["pads_to_square"]?.bool, "\(name)")
      #expect(config.tile == item["tile"]?["longest_edge"]?.int, "\(name)")
      #expect((config.layout == .tiles) == (item["tile"] != nil), "\(name)")
      #expect(config.splits == item["splits"]?.bool, "\(name)")
    }
  }

  @Test func tilesAreWhatTransformersMakesOfThem() throws {
    let cases = try cases("tiled")
    #expect(cases.count == 12)
    for item in cases {
      let name = try #require(item["name"]?.string)
      let config = try ImageConfiguration(huggingFace: try #require(item["config"]), place: name)
      func numbers(_ key: String) -> [Int]? { item[key]?.array?.compactMap(\.int) }
      #expect(config.tile == item["tile"]?.int, "\(name)")
      #expect(config.filter == item["resample"]?.int.flatMap(ImageConfiguration.Filter.init(pillow:)), "\(name)")
      let normalizes = item["normalizes"]?.bool == true
      #expect(config.mean == (normalizes ? item["mean"]?.array?.compactMap(\.double) : [0, 0, 0]), "\(name)")
      #expect(config.std == (normalizes ? item["std"]?.array?.compactMap(\.double) : [1, 1, 1]), "\(name)")
      #expect(config.rescale == (item["rescales"]?.bool == true ? 1.0 / 255 : 1), "\(name)")
      #expect(config.crop == nil && config.squareBackground == nil, "\(name)")
      var metadata = Metadata()
      config.write(to: &metadata, name: "image")
      if let pixels = numbers("pixels") {
        #expect(config.layout == .whole && config.tileSize == nil, "\(name)")
        let multiple = try #require(item["multiple"]?.int)
        #expect(config.resize == .smart(multiple: multiple, pixels: pixels[0]...pixels[1]), "\(name)")
        #expect(metadata["image.pixels"] == .ints(pixels.map { Int64($0) }), "\(name)")
        #expect(metadata["image.multiple"] == .int(Int64(multiple)), "\(name)")
        continue
      }
      #expect(config.resize == .none, "\(name)")
      #expect(metadata["image.tile"] == config.tile.map { .int(Int64($0)) }, "\(name)")
      if let tiles = numbers("tiles") {
        #expect(config.layout == .grid && config.tiles == tiles[0]...tiles[1] && config.hasOverview, "\(name)")
        #expect(metadata["image.overview"] == .bool(true), "\(name)")
      } else {
        let pinpoints = item["pinpoints"]?.array?.compactMap { $0.array?.compactMap(\.int) }
        #expect(config.layout == .anyres, "\(name)")
        let isOneVision = name.hasPrefix("LLaVA-OneVision")
        #expect((metadata["image.several"] == .string("square")) == isOneVision, "\(name)")
        #expect((metadata["image.background"] != nil) == isOneVision, "\(name)")
        #expect(config.pinpoints.map { [$0.height, $0.width] } == pinpoints, "\(name)")
        #expect(metadata["image.pinpoints"] == .ints((pinpoints ?? []).joined().map { Int64($0) }), "\(name)")
      }
    }
  }

  // MARK: What is wrong

  private func failure(_ spoil: (inout SyntheticVision) -> Void) throws -> SquintError? {
    try withFolder { folder in
      var vision = SyntheticVision()
      spoil(&vision)
      try vision.checkpoint.write(to: folder)
      let error = squintError { try planConversion(source: folder) }
      #expect(error?.message.contains("\n") != true)
      return error
    }
  }

  private func refuses(_ message: String, _ spoil: (inout SyntheticVision) -> Void) throws {
    let error = try failure(spoil)
    #expect(error?.kind == .badData, "\(message)")
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
  }

  @Test func aSoundCheckpointConverts() throws {
    #expect(try failure { _ in } == nil)
    // What is behind the features and beside them is known.
    #expect(
      try failure {
        $0.checkpoint.shapes["vision_tower.vision_model.head.probe"] = [1, 1, 16]
        $0.checkpoint.shapes["vision_tower.vision_model.embeddings.position_ids"] = [1, 5]
      } == nil)
    // A tower without its last layer is complete for features of the one before.
    #expect(
      try failure { vision in
        for name in vision.checkpoint.shapes.keys where name.contains("encoder.layers.1.") {
          vision.checkpoint.shapes[name] = nil
        }
      } == nil)
  }

  @Test func tensorsThatDoNotFit() throws {
    try refuses("no rule maps tensor vision_tower.gate.weight;") {
      $0.checkpoint.shapes["vision_tower.vision_model.gate.weight"] = [4]
    }
    try refuses("no rule maps tensor multi_modal_projector.gamma;") {
      $0.checkpoint.shapes["multi_modal_projector.gamma"] = [4]
    }
    try refuses("embeddings.class_embedding (encoder.image.class) is missing") {
      $0.checkpoint.shapes["vision_tower.vision_model.embeddings.class_embedding"] = nil
    }
    try refuses("linear_1.bias (projector.image.0.bias) is missing") {
      $0.checkpoint.shapes["multi_modal_projector.linear_1.bias"] = nil
    }
    try refuses("patch_embedding.weight has shape [16, 1, 14, 42], but the configuration makes it [16, 588]") {
      $0.checkpoint.shapes["vision_tower.vision_model.embeddings.patch_embedding.weight"] = [16, 1, 14, 42]
    }
    try refuses("position_embedding.weight has shape [4, 16]") {
      $0.checkpoint.shapes["vision_tower.vision_model.embeddings.position_embedding.weight"] = [4, 16]
    }
    try refuses("the projector takes 20 numbers, but the encoder's features have 16") {
      $0.checkpoint.shapes["multi_modal_projector.linear_1.weight"] = [32, 20]
    }
    try refuses("the projector gives 24 numbers, but the decoder's width is 32") {
      $0.checkpoint.shapes["multi_modal_projector.linear_2.weight"] = [24, 32]
    }
    try refuses("linear_2.weight takes 32 numbers, but multi_modal_projector.linear_1.weight gives 8") {
      $0.checkpoint.shapes["multi_modal_projector.linear_1.weight"] = [8, 16]
    }
    try refuses("multi_modal_projector has 1 matrices, not 2") {
      $0.checkpoint.shapes["multi_modal_projector.linear_2.weight"] = nil
    }
  }

  @Test func settingsThatDoNotFit() throws {
    for (key, value, message) in [
      ("hidden_size", 0, "hidden_size is not an integer from 1"),
      ("hidden_size", Int.max, "hidden_size is not an integer from 1"),
      ("hidden_size", "16", "hidden_size is not an integer"),
      ("num_hidden_layers", 100_000, "num_hidden_layers is not an integer from 1 to 4,096"),
      ("num_hidden_layers", -2, "num_hidden_layers is not an integer"),
      ("num_attention_heads", 3, "width 16 is no multiple of its 3 heads"),
      ("patch_size", 1 << 40, "patch_size is not an integer from 1 to 1,024"),
      ("patch_size", 56, "0 × 0 patches of 56 pixels"),
      ("image_size", -28, "image_size is not an integer"),
      ("image_size", [28, 56], "image_size is not an integer"),
      ("num_channels", 4, "num_channels is 4"),
      ("hidden_act", "mish", "hidden_act \"mish\" is not supported"),
      ("layer_norm_eps", -1, "epsilon"),
      ("layer_norm_eps", "1", "layer_norm_eps is not a number"),
      ("model_type", "pixtral", "vision model_type \"pixtral\" is not supported; known are clip_vision_model"),
    ] as [(String, any Sendable, String)] {
      try refuses(message) { $0.vision(key, value) }
    }
    for (key, value, message) in [
      ("vision_feature_layer", 3, "features after the layers [3] of an encoder with 2"),
      ("vision_feature_layer", -4, "features after the layers [-1]"),
      ("vision_feature_layer", [-1, -2], "must ascend"),
      ("vision_feature_layer", [1, 1], "must ascend"),
      ("vision_feature_layer", [Int](), "must ascend"),
      ("vision_feature_layer", [Int.min], "vision_feature_layer is not an integer or a list"),
      ("vision_feature_layer", 0.5, "vision_feature_layer is not an integer or a list"),
      ("vision_feature_select_strategy", "best", "\"best\" is not default or full"),
      ("projector_hidden_act", "mish", "projector_hidden_act \"mish\" is not supported"),
      ("multimodal_projector_bias", 1, "multimodal_projector_bias is not true or false"),
      ("image_token_index", 40, "the token 40 for image is not one of the decoder's 40"),
      ("image_token_index", -200, "image_token_index is not an integer from 0 on"),
      ("vision_config", 5, "there is no vision_config"),
    ] as [(String, any Sendable, String)] {
      try refuses(message) { $0.checkpoint.config[key] = value }
    }
    try refuses("model_type \"gemma\"") { $0.text("model_type", "gemma") }
  }

  @Test func theFirstRowOfAnEncoderWithoutClassTokenIsAPatch() throws {
    let json: JSONValue = try JSONValue(parsing: #"{"model_type": "siglip_vision_model"}"#, name: "config.json")
    var config = try EncoderConfiguration(huggingFace: json, place: "config.json")
    let error = squintError {
      try config.select(FeatureSelection(layers: [-1], classRow: .dropsFirst), place: "config.json")
    }
    #expect(error?.message.contains("no class token") == true)
    try config.select(FeatureSelection(layers: [-2], classRow: .drops), place: "config.json")
    #expect(config.layers == 11)
    #expect(!config.features.dropsClass)
    #expect(
      config.tensors(name: "image").filter { $0.name.hasPrefix("encoder.image.11.") }.allSatisfy {
        $0.presence == .unused
      })
  }

  @Test func imagesThatHaveNoWord() throws {
    for (json, message) in [
      (
        #"{"image_processor_type": "PixtralImageProcessor"}"#,
        "\"PixtralImageProcessor\" is not supported; known are CLIP"
      ),
      (#"{"size": {"shortest_edge": 28, "longest_edge": 56}}"#, "shortest_edge and longest_edge is not supported"),
      (#"{"size": {"max_height": 28, "max_width": 56}}"#, "max_height and max_width is not supported"),
      (#"{"size": {}}"#, "no edge is not supported"),
      (#"{"size": {"shortest_edge": 0}}"#, "size.shortest_edge is not an integer from 1"),
      (#"{"size": {"shortest_edge": 9223372036854775807}}"#, "size.shortest_edge is not an integer from 1"),
      (#"{"size": [1, 2, 3]}"#, "size is not a size"), (#"{"size": "28"}"#, "size is not"),
      (#"{"size": null}"#, "size is null"),
      (#"{"crop_size": -1}"#, "crop_size is not a size"),
      (#"{"crop_size": {"height": 28}}"#, "crop_size is not a size"),
      (#"{"crop_size": null}"#, "do_center_crop is true, but there is no crop_size"),
      (#"{"resample": 6}"#, "resample is not one of Pillow's numbers"), (#"{"resample": -1}"#, "resample is not"),
      (#"{"image_mean": [0, 0]}"#, "image_mean is not three numbers"), (#"{"image_mean": null}"#, "image_mean is null"),
      (#"{"image_std": [0, 1, 1]}"#, "image_std has a number that is not positive"),
      (#"{"image_std": [NaN, 1, 1]}"#, "image_std is not three numbers"),
      (#"{"rescale_factor": 0}"#, "rescale_factor 0.0 is not positive"),
      (#"{"do_pad": true, "pad_size": {"height": 40, "width": 40}}"#, "pad_size is not supported"),
      (#"{"do_resize": 1}"#, "do_resize is not true or false"),
      (
        #"{"image_processor_type": "Idefics3ImageProcessor", "size": {"height": 28, "width": 28}}"#,
        "height and width is not supported; longest_edge is"
      ),
      (
        #"{"image_processor_type": "SmolVLMImageProcessor", "size": {"longest_edge": 5000}}"#,
        "size.longest_edge is not an integer from 1 to 4,096"
      ),
      (
        #"{"image_processor_type": "SmolVLMImageProcessor", "max_image_size": {"longest_edge": 0}}"#,
        "max_image_size.longest_edge is not an integer"
      ),
      (#"{"image_processor_type": "GotOcr2ImageProcessor", "max_patches": 0}"#, "max_patches is not an integer from 1"),
      (#"{"image_processor_type": "GotOcr2ImageProcessor", "max_patches": null}"#, "max_patches is null"),
      (#"{"image_processor_type": "GotOcr2ImageProcessor", "min_patches": 13}"#, "min_patches is 13, more than"),
      (#"{"image_processor_type": "GotOcr2ImageProcessor", "size": {"height": 2, "width": 3}}"#, "is not a square"),
      (
        #"{"image_processor_type": "GotOcr2ImageProcessor", "max_patches": 1, "do_resize": false}"#,
        "do_resize is false, but"
      ),
      (#"{"image_processor_type": "Qwen2VLImageProcessor", "temporal_patch_size": 1}"#, "temporal_patch_size is 1"),
      (#"{"image_processor_type": "Qwen2VLImageProcessor", "do_resize": false}"#, "do_resize is false, which"),
      (#"{"image_processor_type": "Qwen2VLImageProcessor", "min_pixels": 0}"#, "min_pixels is not a number of pixels"),
      (
        #"{"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": 100}"#,
        "at least 3,136 pixels and at most 100"
      ),
      (
        #"{"image_processor_type": "Qwen2VLImageProcessor", "size": {"shortest_edge": 3136}}"#,
        "has no longest_edge, and there is no max_pixels"
      ),
      (#"{"image_processor_type": "Qwen2VLImageProcessor", "patch_size": 1000}"#, "patch_size is not an integer"),
      (#"{"image_processor_type": "LlavaNextImageProcessor"}"#, "no multiples of the tile's, 224"),
      (
        #"{"image_processor_type": "LlavaNextImageProcessor", "size": {"shortest_edge": 336}}"#,
        "size is 336, but crop_size 224 × 224"
      ),
      (
        #"{"image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": []}"#,
        "is not a list of heights"
      ),
      (
        #"{"image_processor_type": "LlavaOnevisionImageProcessor", "image_grid_pinpoints": [[384, 9223372036854775807]]}"#,
        "is not a list of heights"
      ),
      (
        #"{"image_processor_type": "LlavaOnevisionImageProcessor", "size": 4, "image_grid_pinpoints": [[400, 400]]}"#,
        "has 10,000 tiles; 1,024 at most"
      ),
    ] {
      let error = squintError {
        try ImageConfiguration(huggingFace: JSONValue(parsing: json, name: "p.json"), place: "p.json")
      }
      #expect(error?.kind == .badData)
      #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted"), not \(message)")
    }
  }

  @Test func imagesThatTheEncoderDoesNotTake() throws {
    func images(_ json: String) -> (inout SyntheticVision) -> Void {
      { $0.checkpoint.files["preprocessor_config.json"] = json }
    }
    try refuses(
      "images of 42 × 42 pixels are 3 × 3 patches, but the encoder's positions are for 2 × 2",
      images(#"{"size": 42, "crop_size": 42}"#))
    try refuses(
      "images of 7 × 7 pixels are smaller than a patch of 14", images(#"{"size": 7, "crop_size": 7}"#))
    try refuses("images keep their aspect", images(#"{"size": 28, "do_center_crop": false}"#))
    #expect(try failure(images(#"{"size": 56, "crop_size": 30}"#)) == nil)
  }

  @Test func aWrongNumberThatNothingReadsIsANote() throws {
    try withFolder { folder in
      var vision = SyntheticVision()
      func notes(_ length: Int) throws -> [String] {
        vision.checkpoint.config["image_seq_length"] = length
        try vision.checkpoint.write(to: folder)
        return try planConversion(source: folder).notes.filter { $0.contains("image_seq_length") }
      }
      #expect(try notes(4).isEmpty)
      #expect(try notes(576).isEmpty)
      let note = try notes(5).first
      #expect(note?.contains("image_seq_length is 5, but the encoder and the projector make 4 rows") == true)
    }
  }

  @Test func anEncoderWithoutAFileOfImagesHasThoseOfTheModel() throws {
    try withFolder { folder in
      let tower = "\(folder)/tower"
      try FileManager.default.copyItem(atPath: "\(VisionFixture.folder)/parts/tower", toPath: tower)
      try FileManager.default.removeItem(atPath: "\(tower)/preprocessor_config.json")
      let source = "\(VisionFixture.folder)/llava-siglip/checkpoint"
      try convert(ConversionSources(source, encoders: ["image": tower]), to: "\(folder)/m.squint")
      let metadata = try ModelFile(path: "\(folder)/m.squint").metadata
      #expect(metadata["image.size"] == .ints([28, 28]))
      #expect(metadata["image.mean"] == .floats([0.5, 0.5, 0.5]))
      // A pair of towers whose older configuration counts.
      let url = URL(fileURLWithPath: "\(tower)/config.json")
      var config = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any])
      config["vision_config_dict"] = ["num_attention_heads": 5]
      try JSONSerialization.data(withJSONObject: config).write(to: url)
      let error = squintError { try planConversion(ConversionSources(source, encoders: ["image": tower])) }
      #expect(error?.message.contains("is no multiple of its 5 heads") == true, "\(error?.message ?? "accepted")")
    }
  }

  @Test func withoutAFileOfImagesTheyAreTheUsualOnes() throws {
    try withFolder { folder in
      var vision = SyntheticVision()
      vision.checkpoint.files = [:]
      try vision.checkpoint.write(to: folder)
      try withFolder { output in
        let report = try convert(source: folder, to: "\(output)/m.squint")
        #expect(
          report.notes.contains {
            $0.contains("no preprocessor_config.json; images are processed as is usual for clip")
          })
        let metadata = try ModelFile(path: "\(output)/m.squint").metadata
        #expect(metadata["image.size"] == .ints([28]))
        #expect(metadata["image.crop"] == .ints([28, 28]))
        #expect(metadata["image.filter"] == .string("bicubic"))
      }
    }
  }

  @Test func tokensThatContradictEachOther() throws {
    try withFolder { folder in
      let source = "\(folder)/source"
      try FileManager.default.copyItem(atPath: "\(VisionFixture.folder)/idefics3/checkpoint", toPath: source)
      func change(_ file: String, _ key: String, _ value: Any) throws {
        let url = URL(fileURLWithPath: "\(source)/\(file)")
        var object = try #require(try JSONSerialization.jsonObject(with: Data(contentsOf: url)) as? [String: Any])
        object[key] = value
        try JSONSerialization.data(withJSONObject: object).write(to: url)
      }
      func failure() -> SquintError? { squintError { try planConversion(source: source) } }
      #expect(failure() == nil)
      try change("processor_config.json", "image_seq_len", 169)
      #expect(
        failure()?.message.contains(
          "image_seq_len of processor_config.json is 169, but the encoder and the projector make 4 rows of a tile")
          == true)
      try change("processor_config.json", "image_seq_len", 4)
      try change("config.json", "image_token_id", 5)
      #expect(failure()?.message.contains("the token for image is 5, but the tokenizer's <image> is 4") == true)
      try change("config.json", "image_token_id", 4)
      try change("config.json", "scale_factor", 3)
      #expect(
        failure()?.message.contains(
          "the projector takes 128 numbers, but the encoder's features in squares of 3 × 3 have 288") == true)
      try change("config.json", "scale_factor", 1000)
      #expect(failure()?.message.contains("scale_factor is not an integer from 1 to 64") == true)
    }
  }
}
