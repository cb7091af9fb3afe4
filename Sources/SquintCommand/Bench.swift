import ArgumentParser
import Squint
import SquintCompute
import SquintFile
import SquintMedia
import SquintTerminal

struct Bench: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Measures speed and memory, beside what this machine can do at all.")

  @OptionGroup var model: ModelArgument
  @OptionGroup var machine: MachineOptions

  @Option(
    help: .init("Measure the encoder with this image, too.", valueName: "file"),
    completion: .file(extensions: ImageFormat.extensions))
  var image: String?

  @Option(
    help: .init("Measure the encoder with this sound, too.", valueName: "file"),
    completion: .file())
  var audio: String?

  @Option(name: .customShort("p"), help: .init("The tokens of the prompt.", valueName: "n"))
  var promptTokens = 512

  @Option(name: .customShort("n"), help: .init("The tokens to generate.", valueName: "n"))
  var generatedTokens = 128

  @Option(help: .init("How often to measure; the median counts.", valueName: "n"))
  var rounds = 5

  @Flag(help: "Print one JSON object.")
  var json = false

  struct Output: Encodable {
    let model: String
    let isa: String
    let threads: Int
    let promptTokens: Int
    let generatedTokens: Int
    let prefillTokensPerSecond: Double
    let decodeTokensPerSecond: Double
    let readBandwidth: Double
    let decodeShareOfBandwidth: Double
    let int8Rate: Double
    let prefillShareOfInt8Rate: Double
    let peakMemory: Int
    let bytesReadPerToken: Int
    let image: Looking?
    let sound: Looking?

    /// What looking at an image takes, or hearing a sound.
    struct Looking: Encodable {
      let tiles: Int
      let tokens: Int
      let decodeMilliseconds: Double
      let encodeMilliseconds: Double
      let encodeShareOfInt8Rate: Double

      enum CodingKeys: String, CodingKey {
        case tiles, tokens
        case decodeMilliseconds = "decode_ms"
        case encodeMilliseconds = "encode_ms"
        case encodeShareOfInt8Rate = "encode_share_of_int8_rate"
      }
    }

    enum CodingKeys: String, CodingKey {
      case model, isa, threads, sound
      case image = "picture"
      case promptTokens = "prompt_tokens"
      case generatedTokens = "generated_tokens"
      case prefillTokensPerSecond = "prefill_tokens_per_second"
      case decodeTokensPerSecond = "decode_tokens_per_second"
      case readBandwidth = "read_bytes_per_second"
      case decodeShareOfBandwidth = "decode_share_of_read_bandwidth"
      case int8Rate = "int8_operations_per_second"
      case prefillShareOfInt8Rate = "prefill_share_of_int8_rate"
      case peakMemory = "peak_memory"
      case bytesReadPerToken = "bytes_read_per_token"
    }
  }

  func run() throws {
    for (name, value) in [("-p", promptTokens), ("-n", generatedTokens), ("--rounds", rounds)] {
      guard (1...1 << 23).contains(value) else {
        throw SquintError(.usage, "\(name) \(value); choose 1 to \(grouped(1 << 23))")
      }
    }
    let model = try Model(model.open(memory: machine.compute.memory))
    var options = machine.session()
    let image = try image.map { try model.medium(.image, $0, machine.limits) }
    let sound = try audio.map { try model.medium(.audio, $0, machine.limits) }
    let media = [image, sound].compactMap { $0 }
    options.prompt = promptTokens
    options.context = options.context ?? max(promptTokens + generatedTokens, media.map(\.rows).max() ?? 0)
    options.media = .init(media)
    let plan = try SessionPlan(model, options)
    machine.report(plan)
    let session = try Session(model, plan)
    var prefill: [Double] = []
    var decode: [Double] = []
    var looking = media.map { _ in [EncodingStatistics]() }
    let progress = Progress(isLong: true)
    for round in 0..<rounds {
      progress.show("round \(round + 1) of \(rounds)")
      let measured = try session.measure(promptTokens: promptTokens, generatedTokens: generatedTokens)
      prefill.append(measured.prefill)
      decode.append(measured.decode)
      for (index, medium) in media.enumerated() { looking[index].append(try session.measure(medium)) }
    }
    // The program's own peak, before the roofline's buffers.
    let peak = Machine.peakResidentBytes()
    progress.show("measuring what the machine can do")
    // Within the budget, too, where there is one.
    let memory = machine.compute.memory.map { max($0.bytes - peak, 0) } ?? Int.max
    let roofline = try Roofline(
      threads: session.plan.threads, memory: min(Machine().availableBytes / 4, memory))

    func looked(at medium: Medium, _ rounds: [EncodingStatistics]) throws -> Output.Looking {
      let encode = median(rounds.map(\.encodingSeconds))
      return Output.Looking(
        tiles: medium.size.units, tokens: medium.rows,
        decodeMilliseconds: 1000 * median(rounds.map(\.decodingSeconds)), encodeMilliseconds: 1000 * encode,
        encodeShareOfInt8Rate: Double(try model.operations(for: medium.size)) / encode
          / roofline.int8OperationsPerSecond)
    }
    let prefillRate = median(prefill)
    let decodeRate = median(decode)
    let output = Output(
      model: model.name, isa: session.instructionSet, threads: session.plan.threads, promptTokens: promptTokens,
      generatedTokens: generatedTokens, prefillTokensPerSecond: prefillRate, decodeTokensPerSecond: decodeRate,
      readBandwidth: roofline.bytesPerSecond,
      decodeShareOfBandwidth: decodeRate * Double(model.bytesPerToken) / roofline.bytesPerSecond,
      int8Rate: roofline.int8OperationsPerSecond,
      prefillShareOfInt8Rate: prefillRate * Double(model.operationsPerToken) / roofline.int8OperationsPerSecond,
      peakMemory: peak, bytesReadPerToken: plan.bytesReadPerToken,
      image: try image.map { try looked(at: $0, looking[0]) },
      sound: try sound.map { try looked(at: $0, looking[media.count - 1]) })
    if json {
      try printJSON(output)
      return
    }
    var table = TextTable(["", "tokens/s", "of the machine's"])
    table.add([
      "prefill \(promptTokens)", fixed(prefillRate, 1),
      "\(fixed(output.prefillShareOfInt8Rate * 100, 0)) % of \(fixed(roofline.int8OperationsPerSecond / 1e12, 2)) int8 TOPS",
    ])
    table.add([
      "decode \(generatedTokens)", fixed(decodeRate, 1),
      "\(fixed(output.decodeShareOfBandwidth * 100, 0)) % of \(fixed(roofline.bytesPerSecond / 1e9, 1)) GB/s read",
    ])
    for (looked, noun, unit) in [(output.image, "image", "tile"), (output.sound, "sound", "part")] {
      guard let looked else { continue }
      let each = looked.encodeMilliseconds / Double(looked.tiles)
      table.add([
        "\(noun), \(looked.tiles) \(unit)\(looked.tiles == 1 && unit == "part" ? "" : "s")",
        "\(fixed(each, 1)) ms a \(unit)",
        "\(fixed(looked.encodeShareOfInt8Rate * 100, 0)) % of \(fixed(roofline.int8OperationsPerSecond / 1e12, 2)) int8 TOPS; "
          + "decoded in \(fixed(looked.decodeMilliseconds, 1)) ms",
      ])
    }
    Terminal.write(
      "\(printable(model.name)), \(output.isa), \(output.threads) threads, median of \(rounds)\n\n\(table.text)\n"
        + "peak memory \(readableSize(peak))\(plan.streaming.map { "; \($0)" } ?? "")\n")
  }

  private func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return (sorted[sorted.count / 2] + sorted[(sorted.count - 1) / 2]) / 2
  }
}
