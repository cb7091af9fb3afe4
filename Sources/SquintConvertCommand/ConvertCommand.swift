import ArgumentParser
import SquintConversion
import SquintFile
import SquintTerminal

@main
struct ConvertCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "squint-convert",
    abstract: "Converts a checkpoint into one .squint file.",
    discussion: """
      SOURCE is a Hugging Face checkpoint folder (config.json, *.safetensors, tokenizer and image processor files) or a \
      GGUF text model, with --mmproj for its encoder and projector. Of models that see: LLaVA (transformers' and the \
      original) over CLIP, SigLIP or DINOv2, Idefics3 and SmolVLM.

      Weights may be quantized: AWQ, GPTQ (2, 3, 4 and 8 bits), MLX (2 to 8 bits), compressed-tensors (packed whole numbers, \
      int8) and FP8 (a scale for each block, each row or the tensor). They become numbers and get their type, but for those \
      that a type holds exactly, which are kept.

      --decoder, --encoder and --projector assemble a model from parts stored apart, or replace parts of SOURCE. An \
      encoder is a folder (CLIP, SigLIP, DINOv2), an ONNX file of one or a GGUF file (mmproj); a projector is a GGUF file \
      (mmproj) or a safetensors file with matrices in order (0.weight, 2.weight, or linear_1.weight, linear_2.weight), \
      biases and a norm in front where there are. How many patches a projector takes side by side follows from its width. \
      Its __metadata__ may name activation, shuffle, feature_layer, select (patch or full) and norm_epsilon; without, it \
      is gelu over what the encoder gives, without the class token.

      SOURCE may also be a folder of such parts: decoder/ or decoder.gguf, encoder/ or encoder.onnx, projector.safetensors, \
      adapter/, and a preprocessor_config.json that replaces the one in encoder/. What an option names is taken instead.

      --adapter merges a LoRA adapter into the decoder, and only there: a folder as PEFT saves it, with adapter_config.json \
      and adapter_model.safetensors. W becomes W + scale · B · A, in f32, before it gets its type; a matrix with an adapter \
      does not keep the blocks that it had, the others do. The tokenizer and the chat template stay the decoder's.

      Types: f32, f16, bf16, int8 (8.5 bits a weight), int4 (4.5 bits), int4_f16 (5 bits). Norms and biases are f32. \
      Without a type, what is quantized keeps its blocks where a type holds them exactly: Q8_0 as int8, Q4_0 and Q4_1 as \
      int4_f16, Q4_K as int4, MLX's of 2 to 4 bits and symmetric ones of up to 4 as int4_f16, symmetric ones of 8 as int8; \
      of the other tensors those of more than 5 bits (Q5_0, Q5_1, Q5_K, Q6_K) become int8, FP8 what plain numbers become.
      """,
    version: "squint-convert \(SquintVersion.program) (file format \(SquintVersion.format))")

  @Argument(
    help: ArgumentHelp(
      "A checkpoint folder, a GGUF file or a folder of parts; not needed with --decoder.", valueName: "source"))
  var source: String?

  @Option(help: ArgumentHelp("The GGUF file with a GGUF text model's encoder and projector.", valueName: "file.gguf"))
  var mmproj: String?

  @Option(help: ArgumentHelp("The decoder: a checkpoint folder or a GGUF file.", valueName: "source"))
  var decoder: String?

  @Option(
    help: ArgumentHelp(
      "The encoder of a modality (image, audio, molecule, series): a folder, an ONNX, a GGUF or a safetensors file.",
      valueName: "name=source")
  )
  var encoder: [NamedPart] = []

  @Option(help: ArgumentHelp("The projector of a modality: a safetensors or a GGUF file.", valueName: "name=file"))
  var projector: [NamedPart] = []

  @Option(help: ArgumentHelp("A LoRA adapter to merge into the decoder: a folder from PEFT.", valueName: "folder"))
  var adapter: String?

  @Option(name: [.customShort("o"), .long], help: ArgumentHelp("The model file to write.", valueName: "out.squint"))
  var output: String?

  @Option(help: ArgumentHelp("One type for all modules.", valueName: "type"))
  var type: ElementType?

  @Option(help: ArgumentHelp("The decoder's matrices. (default: int4)", valueName: "type"))
  var decoderType: ElementType?

  @Option(help: ArgumentHelp("The encoders' matrices. (default: int8)", valueName: "type"))
  var encoderType: ElementType?

  @Option(help: ArgumentHelp("The projectors' matrices. (default: int8)", valueName: "type"))
  var projectorType: ElementType?

  @Option(
    help: ArgumentHelp(
      "The token embedding and, where it is a matrix of its own, the head. (default: int8)", valueName: "type"))
  var embeddingType: ElementType?

  @Flag(
    inversion: .prefixedNo,
    help: """
      Take quantized blocks over bit for bit where a type holds them exactly. (default: in the parts for which no type \
      is given)
      """)
  var keep: Bool?

  @Option(
    help: ArgumentHelp(
      "The side that images are resized and cut to. (default: as the checkpoint says)", valueName: "pixels"))
  var imageSize: Int?

  @Option(
    help: ArgumentHelp(
      "How images become squares; a mmproj file does not say it, and is taken to pad. (default: as the checkpoint says)",
      valueName: "fit"))
  var imageFit: ConversionOptions.ImageFit?

  @Flag(help: "Leave out tensors that no rule maps, instead of refusing them.")
  var allowUnmapped = false

  @Flag(help: "Print the plan (tensors, types, sizes, what is unmapped) and write nothing.")
  var dryRun = false

  @Option(help: ArgumentHelp("Threads. (default: all processors)", valueName: "n"))
  var jobs: Int?

  @Flag(help: "Print the closing table as JSON.")
  var json = false

  func validate() throws {
    if source == nil && decoder == nil && encoder.isEmpty {
      throw ValidationError("Missing expected argument '<source>' or '--decoder'")
    }
    for (option, parts) in [("--encoder", encoder), ("--projector", projector)] {
      var seen: Set<String> = []
      for part in parts where !seen.insert(part.name).inserted {
        throw ValidationError("The option \(option) \(part.name)= is given twice")
      }
    }
    if output == nil && !dryRun { throw ValidationError("Missing expected argument '-o <out.squint>'") }
    if let jobs, jobs < 1 { throw ValidationError("--jobs must be at least 1") }
  }

  static func main() {
    Terminal.prepare(
      "squint-convert",
      unreadable: "a source file cannot be read any more: it was changed meanwhile, or the disk is failing\n")
    do { try withSufficientStack(runCommand) } catch { Terminal.fail(error) }
  }

  private static func runCommand() {
    do {
      var command = try parseAsRoot(programArguments())
      try command.run()
    } catch let error as SquintError {
      Terminal.fail(error)
    } catch {
      // Help and version are what was asked for; a bare exit code has been explained.
      if error is ExitCode || exitCode(for: error).isSuccess { exit(withError: error) }
      // A list of values comes with a line for each.
      let lines = message(for: error).split(separator: "\n").map { $0.drop { $0 == " " || $0 == "-" } }
      Terminal.fail(SquintError(.usage, "\(lines.joined(separator: " ")); squint-convert --help says how"))
    }
  }

  func run() throws {
    var options = ConversionOptions()
    options.type = type
    options.decoderType = decoderType
    options.encoderType = encoderType
    options.projectorType = projectorType
    options.embeddingType = embeddingType
    options.keep = keep
    options.imageSize = imageSize
    options.imageFit = imageFit
    options.jobs = jobs
    options.allowsUnmapped = allowUnmapped
    var sources = ConversionSources(
      source, mmproj: mmproj, decoder: decoder,
      encoders: Dictionary(encoder.map { ($0.name, $0.path) }) { first, _ in first },
      projectors: Dictionary(projector.map { ($0.name, $0.path) }) { first, _ in first })
    sources.adapter = adapter
    let known = ConversionSources.modalities
    for (option, parts) in [("--encoder", encoder), ("--projector", projector)] {
      for part in parts where !known.contains(part.name) {
        throw SquintError(
          .usage,
          "\(option) \(part.name)=…: there are encoders of \(known.dropLast().joined(separator: ", ")) and \(known.last!); "
            + "a video goes through image's")
      }
    }
    guard let output, !dryRun else {
      let report = try planConversion(sources, options: options)
      Terminal.write((json ? report.json : report.plan) + "\n")
      printNotes(report)
      return
    }
    let name = output.split(separator: "/").last.map(String.init) ?? output
    let progress = Progress()
    let report = try SquintConversion.convert(sources, to: output, options: options) { step in
      progress.show(step.lines(name: name, seconds: progress.seconds))
    }
    Terminal.write((json ? report.json : report.table) + "\n")
    printNotes(report)
  }

  private func printNotes(_ report: ConversionReport) {
    for note in report.notes { Terminal.report("note: \(note)") }
    if !dryRun && !report.unmapped.isEmpty {
      Terminal.report(
        "note: \(report.unmapped.count) tensors are left out: \(report.unmapped.prefix(5).joined(separator: ", "))\(report.unmapped.count > 5 ? ", …" : "")"
      )
    }
  }
}

/// `NAME=PATH`: a part of the modality NAME.
struct NamedPart: ExpressibleByArgument {
  let name: String
  let path: String

  init?(argument: String) {
    guard let equals = argument.firstIndex(of: "=") else { return nil }
    name = String(argument[..<equals])
    path = String(argument[argument.index(after: equals)...])
    guard !name.isEmpty, !path.isEmpty else { return nil }
  }
}

extension ConversionOptions.ImageFit: ExpressibleByArgument {}

extension ElementType: ExpressibleByArgument {
  public init?(argument: String) { self.init(name: argument) }

  public static var allValueStrings: [String] { allCases.map(\.name) }

  // The discussion describes the types once, not under every option.
  public static var allValueDescriptions: [String: String] { [:] }
}
