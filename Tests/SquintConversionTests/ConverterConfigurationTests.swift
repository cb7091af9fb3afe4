import Foundation
import SquintConversion
import SquintFile
import Testing

@Suite struct ConverterConfigurationTests {
  private func decode(_ object: Any) throws -> DecoderConfiguration {
    let data = try JSONSerialization.data(withJSONObject: object)
    return try decode(text: String(decoding: data, as: UTF8.self))
  }

  private func decode(text: String) throws -> DecoderConfiguration {
    try DecoderConfiguration(huggingFace: JSONValue(parsing: text, name: "config.json"), place: "config.json")
  }

  /// Every spelling and rotary rule, against what transformers makes of it.
  @Test func isWhatTransformersMakesOfIt() throws {
    let json = try JSONValue.read(path: ConverterFixture.file("configurations.json"))
    let cases = try #require(json.array)
    #expect(cases.count == 31)
    for item in cases {
      let name = try #require(item["name"]?.string)
      let config = try DecoderConfiguration(huggingFace: try #require(item["config"]), place: name)
      #expect(config.vocabulary == item["vocabulary"]?.int, "\(name)")
      #expect(config.context == item["context"]?.int, "\(name)")
      #expect(config.layers == item["layers"]?.int, "\(name)")
      #expect(config.width == item["width"]?.int, "\(name)")
      #expect(config.ffnWidth == item["ffn_width"]?.int, "\(name)")
      #expect(config.heads == item["heads"]?.int, "\(name)")
      #expect(config.keyValueHeads == item["kv_heads"]?.int, "\(name)")
      #expect(config.headWidth == item["head_width"]?.int, "\(name)")
      #expect(config.normEpsilon == item["norm_epsilon"]?.double, "\(name)")
      #expect(config.isTied == item["tied"]?.bool, "\(name)")
      var metadata = Metadata()
      config.write(to: &metadata)
      #expect(try metadata.int("decoder.window", in: 0...Int.max, default: 0) == item["window"]?.int, "\(name)")
      let windowLayers = item["window_layers"]?.array?.compactMap { $0.int.map(Int64.init) } ?? []
      #expect(try metadata.ints("decoder.window_layers") == windowLayers, "\(name)")

      let frequencies = try #require(item["frequencies"]?.array).compactMap(\.double)
      #expect(config.rotary.frequencies.count == frequencies.count, "\(name)")
      for (ours, theirs) in zip(config.rotary.frequencies, frequencies) {
        // PyTorch's f32 powers may be off by a unit in the last place, which a subtraction in llama3 and yarn can double.
        #expect(abs(Double(ours) - theirs) <= abs(theirs) * 0x1p-21, "\(name): \(ours), not \(theirs)")
      }
      let magnitude = try #require(item["magnitude"]?.double)
      #expect(abs(config.rotary.magnitude - magnitude) < 1e-12, "\(name)")
    }
  }

  @Test func rotaryPerLayerTypeIsTakenWhereAllAgree() throws {
    let rule: [String: Any] = ["rope_type": "linear", "rope_theta": 5000.0, "factor": 2.0]
    var config: [String: Any] = [
      "model_type": "qwen2", "hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 4,
      "num_hidden_layers": 2,
      "layer_types": ["full_attention", "full_attention"],
      "rope_parameters": ["full_attention": rule, "sliding_attention": ["rope_type": "default", "rope_theta": 1.0]],
    ]
    #expect(try decode(config).rotary == RotaryFrequencies(linear: 2, width: 16, base: 5000))
    config["layer_types"] = ["full_attention", "sliding_attention"]
    let error = squintError { _ = try decode(config) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains("differ between layer types") == true)
  }

  /// Only with a rule of scaling, as in transformers; the default turns the whole head.
  @Test func partOfAHeadIsRotated() throws {
    var json: [String: Any] = [
      "hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "partial_rotary_factor": 0.25,
    ]
    for type in ["llama", "mistral", "qwen2", "qwen3"] {
      json["model_type"] = type
      json["rope_scaling"] = nil
      let config = try decode(json)
      #expect(config.rotary == RotaryFrequencies(width: config.headWidth, base: 10_000))
      json["rope_scaling"] = ["rope_type": "default"]
      #expect(try decode(json).rotary == config.rotary)
      json["rope_scaling"] = ["rope_type": "linear", "factor": 2.0] as [String: Any]
      #expect(try decode(json).rotary == RotaryFrequencies(linear: 2, width: config.headWidth / 4, base: 10_000))
    }
  }

  @Test func anEmptyScalingIsNone() throws {
    let config = try decode([
      "model_type": "llama", "rope_scaling": [String: Any](), "rope_parameters": ["rope_theta": 500.0],
    ])
    #expect(config.rotary == RotaryFrequencies(width: 128, base: 500))
  }

  @Test func outerTieIsTakenForAnInnerDecoder() throws {
    #expect(try decode(["text_config": ["model_type": "llama"], "tie_word_embeddings": true]).isTied)
    #expect(
      try !decode(["text_config": ["model_type": "llama", "tie_word_embeddings": false], "tie_word_embeddings": true])
        .isTied)
  }

  /// What is not supported or nonsense: one line that names it.
  @Test(arguments: [
    (#"{}"#, "model_type \"\""),
    (#"{"model_type": "gemma3"}"#, "model_type \"gemma3\""),
    (#"{"model_type": 7}"#, "model_type is not a text"),
    (#"{"model_type": "llama", "hidden_act": "gelu"}"#, "hidden_act \"gelu\""),
    (#"{"model_type": "llama", "rope_scaling": {"type": "longrope", "factor": 2}}"#, "\"longrope\" is not supported"),
    (#"{"model_type": "llama", "rope_scaling": {"type": "linear"}}"#, "\"linear\" has no factor"),
    (#"{"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 0}}"#, "factor 0.0 is not positive"),
    (#"{"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 2}}"#, "has no low_freq_factor"),
    (
      #"{"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 2, "low_freq_factor": 4, "high_freq_factor": 1}}"#,
      "not in order"
    ),
    (#"{"model_type": "llama", "rope_scaling": 5}"#, "rope_parameters is not an object"),
    (#"{"model_type": "llama", "rope_theta": -1}"#, "rope_theta"),
    (
      #"{"model_type": "llama", "partial_rotary_factor": 1.5, "rope_scaling": {"rope_type": "linear", "factor": 2}}"#,
      "partial_rotary_factor"
    ),
    (#"{"model_type": "llama", "hidden_size": 0}"#, "hidden_size is not an integer from 1"),
    (#"{"model_type": "llama", "hidden_size": 9223372036854775807}"#, "hidden_size is not an integer from 1"),
    (#"{"model_type": "llama", "num_hidden_layers": 100000}"#, "num_hidden_layers is not an integer from 1 to 4,096"),
    (#"{"model_type": "llama", "num_attention_heads": "8"}"#, "num_attention_heads is not an integer"),
    (#"{"model_type": "llama", "num_attention_heads": 32, "num_key_value_heads": 5}"#, "no multiple of 5"),
    (#"{"model_type": "llama", "hidden_size": 15, "num_attention_heads": 5}"#, "3 wide"),
    (#"{"model_type": "llama", "hidden_size": 4, "num_attention_heads": 8}"#, "too small for 8 heads"),
    (#"{"model_type": "llama", "rms_norm_eps": -1}"#, "epsilon"),
    (#"{"model_type": "llama", "attention_bias": 1}"#, "attention_bias is not true or false"),
    (
      #"{"model_type": "qwen3", "use_sliding_window": true, "num_hidden_layers": 2, "layer_types": ["full_attention", "chunked"]}"#,
      "layer_types: \"chunked\""
    ),
    (
      #"{"model_type": "qwen3", "use_sliding_window": true, "num_hidden_layers": 2, "layer_types": []}"#,
      "layer_types names 0 layers of 2"
    ),
  ]) func refuses(config: String, message: String) {
    let error = squintError { _ = try decode(text: config) }
    #expect(error?.kind == .badData)
    #expect(error?.message.contains(message) == true, "\(error?.message ?? "accepted")")
  }

  @Test func rowsComeBackFromNeighbouringPairs() {
    // Head 1 of width 6, of which 4 are rotated: (0 1) (2 3) side by side become 0 2 1 3, and 4 5 stay.
    let order = RowOrder.interleavedPairs(headWidth: 6, rotaryWidth: 4)
    #expect((6..<12).map(order.sourceRow) == [6, 8, 7, 9, 10, 11])
  }
}
