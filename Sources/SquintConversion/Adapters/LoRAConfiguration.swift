import SquintFile

/// What PEFT's adapter_config.json says of a LoRA adapter (peft/tuners/lora/config.py, `LoraConfig`).
struct LoRAConfiguration: Sendable {
  private let rank: Int
  private let alpha: Double
  /// In the order of the file: the first that matches a module counts.
  private let ranks: [(pattern: ModulePattern, rank: Int)]
  private let alphas: [(pattern: ModulePattern, alpha: Double)]
  /// Whether the scale is alpha / √rank (rsLoRA, arXiv 2312.03732) instead of alpha / rank.
  private let isRankStabilized: Bool

  /// - Parameter place: the file, for messages.
  /// - Throws: `SquintError.badData` which names the key that is wrong, or that makes of the adapter something else than the
  ///   product of two matrices.
  init(_ json: JSONValue, place: String) throws(SquintError) {
    guard let members = json.object?.members else { throw .badData(place, "it is not a JSON object") }
    let reader = ConfigurationReader(json: json, place: place)
    guard let type = try reader.text("peft_type") else { throw .badData(place, "there is no peft_type") }
    guard type == "LORA" else {
      throw .badData(place, "peft_type \"\(printable(type))\" is not supported, only LORA is; \(Self.remedy)")
    }
    guard try reader.text("bias") ?? "none" == "none" else {
      throw .badData(place, "bias is not \"none\": biases were trained beside the adapter; \(Self.remedy)")
    }
    // These start from a part of the model's own weights, which they take away from the model.
    let initialization = try Self.initialization(reader)
    guard Self.initializations.contains(initialization) else {
      throw .badData(
        place,
        "init_lora_weights \"\(printable(initialization))\" changes the model that the adapter is for; save the "
          + "adapter with path_initial_model_for_weight_conversion, or merge it with PEFT (merge_and_unload)")
    }
    for member in members where !Self.known.contains(member.key) && Self.isSwitchedOn(member.value) {
      throw .badData(place, "\(printable(member.key)) is set, which is not supported; \(Self.remedy)")
    }
    rank = try reader.size("r", atMost: Self.largestRank) ?? 8
    alpha = try reader.number("lora_alpha") ?? 8
    isRankStabilized = try reader.flag("use_rslora") ?? false
    var ranks: [(pattern: ModulePattern, rank: Int)] = []
    for (key, pattern) in try Self.patterns("rank_pattern", reader) {
      let values = ConfigurationReader(json: json["rank_pattern"] ?? .null, place: "\(place): rank_pattern")
      guard let rank = try values.size(key, atMost: Self.largestRank) else {
        throw values.wrong(printable(key), "an integer")
      }
      ranks.append((pattern, rank))
    }
    self.ranks = ranks
    var alphas: [(pattern: ModulePattern, alpha: Double)] = []
    for (key, pattern) in try Self.patterns("alpha_pattern", reader) {
      let values = ConfigurationReader(json: json["alpha_pattern"] ?? .null, place: "\(place): alpha_pattern")
      guard let alpha = try values.number(key) else { throw values.wrong(printable(key), "a number") }
      alphas.append((pattern, alpha))
    }
    self.alphas = alphas
  }

  /// The rank of the adapter of `module` (`model.layers.0.self_attn.q_proj`).
  func rank(of module: String) -> Int { ranks.first { $0.pattern.matches(module) }?.rank ?? rank }

  /// What multiplies the product of the two matrices of `module`.
  func scale(of module: String) -> Double {
    let rank = Double(rank(of: module))
    let alpha = alphas.first { $0.pattern.matches(module) }?.alpha ?? alpha
    return alpha / (isRankStabilized ? rank.squareRoot() : rank)
  }

  /// A bound that no adapter comes near: a rank beyond the sides of a matrix gains nothing.
  private static let largestRank = 1 << 16

  static let remedy = "merge the adapter with PEFT (merge_and_unload) and convert the result"

  // MARK: Settings

  /// Those that are read here, and those that say where adapters are or how they are trained, which the tensors show.
  private static let known: Set<String> = [
    "peft_type", "bias", "init_lora_weights", "r", "lora_alpha", "use_rslora", "rank_pattern", "alpha_pattern",
    "auto_mapping", "ensure_weight_tying", "eva_config", "exclude_modules", "inference_mode", "layers_pattern",
    "layers_to_transform", "loftq_config", "megatron_config", "runtime_config", "target_modules",
  ]

  /// Whether a setting asks for something. Each of PEFT's variants has a flag, a list or an object of its own; the numbers and
  /// texts that go with them have defaults that are always written.
  private static func isSwitchedOn(_ value: JSONValue) -> Bool {
    switch value {
    case .bool(let flag): flag
    case .array(let elements): !elements.isEmpty
    case .object(let object): object.count > 0
    case .null, .int, .double, .string: false
    }
  }

  /// The values of init_lora_weights that leave the model's weights alone.
  private static let initializations: Set<String> = ["true", "false", "gaussian", "eva", "orthogonal"]

  private static func initialization(_ reader: ConfigurationReader) throws(SquintError) -> String {
    guard let value = reader.json["init_lora_weights"] else { return "true" }
    if let flag = value.bool { return flag ? "true" : "false" }
    return try reader.text("init_lora_weights") ?? "true"
  }

  private static func patterns(
    _ key: String, _ reader: ConfigurationReader
  ) throws(SquintError) -> [(key: String, pattern: ModulePattern)] {
    guard let value = reader.json[key] else { return [] }
    guard let object = value.object else { throw reader.wrong(key, "a JSON object") }
    var patterns: [(key: String, pattern: ModulePattern)] = []
    for member in object.members {
      guard let pattern = ModulePattern(member.key) else {
        throw .badData(
          reader.place,
          "\(key): \"\(printable(member.key))\" is a regular expression, which is not supported; write names of modules"
        )
      }
      patterns.append((member.key, pattern))
    }
    return patterns
  }
}

/// A key of rank_pattern or alpha_pattern: the name of a module, or how names of modules end.
///
/// PEFT takes it as a regular expression that must match the end of a name behind a dot, or all of it (peft/utils/other.py,
/// `get_pattern_key`). Here a dot is a dot, `^` and `$` are what they are there, and no other expression is understood.
private struct ModulePattern: Sendable {
  private let text: String
  private let isWhole: Bool

  /// nil where `key` is more than a name.
  init?(_ key: String) {
    var text = Substring(key)
    isWhole = text.hasPrefix("^")
    if isWhole { text.removeFirst() }
    if text.hasSuffix("$") { text.removeLast() }
    var name = ""
    var isEscaped = false
    for scalar in text.unicodeScalars {
      if scalar == "\\" && !isEscaped {
        isEscaped = true
        continue
      }
      guard scalar == "." || !isEscaped && !"\\^$*+?{}[]|()".unicodeScalars.contains(scalar) else { return nil }
      name.unicodeScalars.append(scalar)
      isEscaped = false
    }
    guard !isEscaped, !name.isEmpty else { return nil }
    self.text = name
  }

  func matches(_ module: String) -> Bool { module == text || !isWhole && module.hasSuffix("." + text) }
}
