import SquintText

/// How the tokenizers that GGUF files name cut a text into words, as the checkpoints' tokenizer.json have it.
///
/// The names are llama.cpp's (llama-vocab.cpp, `llama_vocab::impl::load`), which puts its own forms of some
/// expressions beside the checkpoints'; where it quotes only its own, that is taken.
enum TokenizerExpressions {
  typealias PreTokenizer = TokenizerDefinition.PreTokenizer

  /// A pre-tokenizer that a GGUF file names, and what the name says besides.
  struct Named {
    var steps: [PreTokenizer]
    var ignoresMerges = false
    var addsBos = false
    /// The checkpoints normalize; llama.cpp leaves it out.
    var normalizers: [TokenizerDefinition.Normalizer] = []
  }

  private static let contractions = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
  private static let spaces = #"|\s*[\r\n]+|\s+(?!\S)|\s+"#

  private static func llama3(numbers: String) -> String {
    contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|"# + numbers + #"| ?[^\s\p{L}\p{N}]+[\r\n]*"# + spaces
  }

  static let llama3 = llama3(numbers: #"\p{N}{1,3}"#)
  static let qwen2 = llama3(numbers: #"\p{N}"#)
  private static let qwen35 =
    contractions + #"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"# + spaces

  /// o200k's words: capitals, then small letters.
  private static func cased(
    _ rest: String, upper: String = #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"#,
    lower: String = #"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"#, ending: String = contractions + "?"
  ) -> String {
    let before = #"[^\r\n\p{L}\p{N}]?"#
    return "\(before)\(upper)*\(lower)+\(ending)|\(before)\(upper)+\(lower)*\(ending)|" + rest + spaces
  }

  private static let o200k = cased(#"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*"#)
  static let tekken = cased(#"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"#, ending: "")
  private static let kimi =
    #"[\p{Han}]+|"#
    + cased(
      #"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"#, upper: #"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"#,
      lower: #"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]"#)
  private static let bailing =
    #"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"#
  private static let exaoneMoE =
    contractions + #"|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?"#
    + #"|\s*[\r\n]|\s+(?!\S)|\s+"#
  private static let seedCoder =
    contractions + #"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1}| ?[^\s\p{L}\p{N}\r\n]+"# + spaces
  private static let jais2 =
    String(llama3.dropLast(#"|\s+(?!\S)|\s+"#.count))
    + ["512", "256", "128", "64", "32", "16", "8", "4", "1,2"].map { #"|\s{"# + $0 + #"}(?!\S)"# }.joined() + #"|\s{1}"#

  private static let chinese = #"[\u4E00-\u9FA5\u3040-\u309F\u30A0-\u30FF]+"#
  private static let deepSeekAsian = #"[\u4E00-\u9FA5\u0800-\u4E00\uAC00-\uD7FF]+"#
  private static let deepSeek3 =
    ##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"##
    + #"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"# + spaces
  private static let deepSeekLetters =
    #"\s?[A-Za-z\u00B5\u00C0-\u00D6\u00D8-\u00F6\u00F8-\u01BA\u01BC-\u01BF\u01C4-\u0293\u0295-\u02AF\u0370-"#
    + #"\u0373\u0376\u0377\u037B-\u037D\u037F\u0386\u0388-\u038A\u038C\u038E-\u03A1\u03A3-\u03F5\u03F7-\u0481"#
    + #"\u048A-\u052F\u0531-\u0556\u10A0-\u10C5\u13A0-\u13F5\u13F8-\u13FD\u1C90-\u1CBA\u1CBD-\u1CBF\u1D00-\u1D2B"#
    + #"\u1D6B-\u1D77\u1D79-\u1D9A\u1E00-\u1F15\u1F18-\u1F1D\u1F20-\u1F45\u1F48-\u1F4D\u1F50-\u1F57\u1F59\u1F5B"#
    + #"\u1F5D\u1F5F-\u1F7D\u1F80-\u1FB4\u1FB6-\u1FBC\u1FBE\u1FC2-\u1FC4\u1FC6-\u1FCC\u1FD0-\u1FD3\u1FD6-\u1FDB"#
    + #"\u1FE0-\u1FEC\u1FF2-\u1FF4\u1FF6-\u1FFC\u2102\u2107\u210A-\u2113\u2115\u2119-\u211D\u2124\u2126\u2128"#
    + #"\u212A-\u212D\u212F-\u2134\u2139\u213C-\u213F\u2145-\u2149\u214E\u2183\u2184\u2C00-\u2C7B\u2C7E-\u2CE4"#
    + #"\u2CEB-\u2CEE\u2CF2\u2CF3\uA640-\uA66D\uA680-\uA69B\uA722-\uA76F\uA771-\uA787\uA78B-\uA78E\uAB70-\uABBF"#
    + #"\uFB00-\uFB06\uFB13-\uFB17\uFF21-\uFF3A\uFF41-\uFF5A\x{10400}-\x{1044F}\x{104B0}-\x{104D3}\x{104D8}-"#
    + #"\x{104FB}\x{10C80}-\x{10CB2}\x{10CC0}-\x{10CF2}\x{118A0}-\x{118DF}\x{1E900}-\x{1E943}]+"#
  private static let deepSeekPunctuation = #"\s?[!-/:-~\uFF01-\uFF0F\uFF1A-\uFF5E\u2018-\u201F\u3000-\u3002]+"#
  private static let youtu =
    #"[\uAC00-\uD7A3\u3131-\u318E]+"#
    + #"|[\uFF01\u2026\u201C\u201D\u2018\u2019\u2014\uFF1A\uFF1B\uFF0C\u3001-\u303F\uFE30-\uFE4F]+|[\u3105-\u312F]+|"#
    + chinese
  private static let trinityAsian =
    #"(?:[\u4E00-\u9FFF\u3040-\u309F\u30A0-\u30FF\u3400-\u4DBF\uf900-\uFAFF\uFF65-\uFF9F\u2F00-\u2FDF]+"#
    + #"|[\u0E00-\u0E7F]+|[\u0E80-\u0EFF]+|[\u1780-\u17FF]+|[\u1000-\u109F\uAA60-\uAA7F\uA9E0-\uA9FF]+"#
    + #"|[\uAC00-\uD7AF\u1100-\u11FF]+)"#
  private static let bloom = #" ?[^(\s|.,!?\u2026\u3002\uFF0C\u3001\u0964\u06D4\u060C)]+"#

  private static func words(_ expressions: String...) -> [PreTokenizer] { expressions.map(PreTokenizer.words) }

  /// Every name that is known, for an error's line.
  static let names: [String] = named.flatMap(\.names)

  static func named(_ name: String) -> Named? { named.first { $0.names.contains(name) }?.value }

  private static let named: [(names: [String], value: Named)] = [
    (
      ["default"],
      Named(steps: words(#"[\p{P}\$\+<=>\^~\|]+"#) + [.gpt2] + words(#"\p{N}+"#, "[0-9][0-9][0-9]"))
    ),
    (
      [
        "gpt-2", "phi-2", "mpt", "olmo", "jais", "trillion", "granite-docling", "gigachat", "a.x-4.0", "mellum",
        "modern-bert", "exaone4", "jina-es", "jina-de", "jina-v2-es", "jina-v2-de",
      ],
      Named(steps: [.gpt2])
    ),
    (
      ["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
      Named(steps: [.digits, .gpt2])
    ),
    (
      [
        "llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano",
      ],
      Named(steps: words(llama3), ignoresMerges: true, addsBos: true)
    ),
    (["dbrx", "smaug-bpe", "chatglm-bpe"], Named(steps: words(llama3))),
    (["glm4", "glm5"], Named(steps: words(llama3), ignoresMerges: true)),
    (["jais-2"], Named(steps: words(jais2))),
    (
      ["qwen2", "deepseek-r1-qwen", "megrez", "kormo", "f2llmv2"],
      Named(steps: words(qwen2), normalizers: [.nfc])
    ),
    (["qwen35"], Named(steps: words(qwen35), normalizers: [.nfc])),
    (["stablelm2", "hunyuan", "solar-open", "grok-2"], Named(steps: words(qwen2))),
    (["ufakzeka"], Named(steps: words(String(qwen2.dropFirst(contractions.count + 1))))),
    (["laguna"], Named(steps: words(#"[^\n]+|[\n]+"#, qwen2))),
    (["minicpm5"], Named(steps: words(#"\p{N}{1,3}"#, llama3(numbers: #"\p{N}+"#)), ignoresMerges: true)),
    (
      ["deepseek-llm"],
      Named(
        steps: words(#"[\r\n]"#, deepSeekLetters, deepSeekPunctuation, #"\s+$"#, deepSeekAsian, #"\p{N}+"#))
    ),
    (
      ["deepseek-coder"],
      Named(steps: words(#"[\r\n]"#, #"\s?\p{L}+"#, #"\s?\p{P}+"#, deepSeekAsian, #"\p{N}"#))
    ),
    (
      ["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
      Named(steps: words(#"\p{N}{1,3}"#, chinese, deepSeek3))
    ),
    (
      ["youtu"],
      Named(steps: words(youtu, cased(#"\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*"#)), ignoresMerges: true)
    ),
    (
      ["falcon"],
      Named(steps: [
        .split(expression: #"\p{x_punctuation}"#, .contiguous, isInverted: false), .gpt2, .bytes,
        .split(expression: #"\p{x_numeric}"#, .contiguous, isInverted: false), .words("[0-9][0-9][0-9]"),
      ])
    ),
    (["bloom", "poro-chat", "gpt3-finnish"], Named(steps: words(bloom))),
    (["viking"], Named(steps: words(bloom, #"\p{N}"#))),
    (["tekken"], Named(steps: words(tekken), ignoresMerges: true, addsBos: true)),
    (
      ["chameleon"],
      Named(
        steps: words("(<sentinel:[0-9]+>)", "(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z", #"([\t\n]|    |  )"#)
          + [.digits, .words(#"\p{x_punctuation}"#), .gpt2],
        addsBos: true)
    ),
    (["gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"], Named(steps: words(o200k))),
    (["granite-embed-multi-97m"], Named(steps: words(o200k), ignoresMerges: true)),
    (["tiny_aya", "cohere2moe"], Named(steps: words(#"\d{1,3}(?=(?:\d{3})*\b)"#, o200k))),
    (["superbpe"], Named(steps: words(#"\p{N}+"#, #"(?=(\d{3})+(?!\d))"#))),
    (["bailingmoe", "bailingmoe2", "llada-moe"], Named(steps: words(bailing))),
    (["seed-coder"], Named(steps: words(seedCoder))),
    (["exaone-moe"], Named(steps: words(exaoneMoE))),
    (["kimi-k2"], Named(steps: words(kimi))),
    (
      ["afmoe"],
      Named(
        steps: words(
          #"\p{Nd}{1,510}(?=(?>\p{Nd}{510})*(?:\P{Nd}|$))|\G\p{Nd}{510}"#, #"\A\p{Nd}{1,2}(?=\p{Nd}{3}+\z)"#,
          #"\A\p{Nd}{3}|\G\p{Nd}{3}"#, trinityAsian, deepSeek3))
    ),
  ]
}
