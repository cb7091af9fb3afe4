import ArgumentParser
import Squint
import SquintCompute
import SquintFile
import SquintTerminal

struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a session takes, phase by phase, and whether it fits, without reading a weight.")

  @OptionGroup var model: ModelArgument
  @OptionGroup var media: MediaOptions
  @OptionGroup var machine: MachineOptions

  @Option(help: .init("Plan for beam search over this many sequences.", valueName: "n"))
  var beams = 1

  @Flag(help: "Plan for a conversation, in which media may come at any time.")
  var chat = false

  @Flag(help: "Print one JSON object.")
  var json = false

  @Option(help: .init("Draw the plan into this file.", valueName: "file"), completion: .file(extensions: ["svg"]))
  var svg: String?

  struct Output: Encodable {
    struct Phase: Encodable {
      let name: String
      let bytes: Int
      let items: [String: Int]
    }

    struct Buffer: Encodable {
      let name: String
      let bytes: Int
      let offset: Int
      let phases: [String]
    }

    /// How many experts are in memory at a time.
    struct Experts: Encodable {
      let held: Int
      let all: Int
    }

    /// What an image takes that is looked at in one of the ways that the model allows.
    struct Image: Encodable {
      /// The size of a tile, in pixels.
      let width: Int
      let height: Int
      let tiles: Int
      let tokens: Int
      let bytes: Int
      let peak: Int
      /// About how long it takes until the answer begins; left out where nothing says so.
      let seconds: Double?
    }

    let context: Int
    let kv: String
    let threads: Int
    let budget: Int
    let peak: Int
    /// The rows of a prompt that go through the decoder together.
    let rows: Int
    /// What of the decoder's weights does not stay in memory, and of the encoder's, times how often it is read.
    let bytesReadPerToken: Int
    let bytesReadToEncode: Int
    /// Absent where there are none, or all are used in place in the file.
    let experts: Experts?
    let phases: [Phase]
    let arena: [Buffer]
    let images: [Image]
    /// What each medium that the plan is for takes of the context.
    let media: [Medium]

    struct Medium: Encodable {
      let kind: String
      let units: Int
      let tokens: Int
    }

    enum CodingKeys: String, CodingKey {
      case context, kv, threads, budget, peak, rows, experts, phases, arena, media
      case images = "pictures"
      case bytesReadPerToken = "bytes_read_per_token"
      case bytesReadToEncode = "bytes_read_to_look"
    }
  }

  /// The tokens of a question beside media.
  private static let question = 64

  func run() throws {
    let model = try Model(model.open(memory: machine.compute.memory))
    let given = try machine.media(media, for: model)
    // Without a medium, the largest that the model takes.
    var shown = given.map(\.size)
    if given.isEmpty {
      for kind in MediaKind.allCases { shown += try model.choices(of: kind, machine.limits).suffix(1) }
    }
    // The text that stands before each series may be longer than they are.
    let written =
      given.contains { $0.kind == .series } && !chat
      ? (try? model.prompt(text: "", media: given)).map { $0.count + Self.question } : nil
    func options(_ sizes: [MediumSize]) -> SessionOptions {
      machine.session(beams: beams, media: sizes.isEmpty ? .none : .once(sizes), prompt: written)
    }
    var planned = options(shown)
    if chat, model.acceptsMedia {
      planned.media = .always
      planned.known = shown
    }
    let plan = try SessionPlan(model, planned)
    let rows = chat ? 0 : given.reduce(0) { $0 + $1.size.rowsWithSound }
    guard rows <= plan.context else {
      throw SquintError(
        .usage, "the media take \(grouped(rows)) tokens, and the context holds \(grouped(plan.context))",
        remedies: [.smallerMedia])
    }
    let images = try images(of: model, like: given.first { $0.kind == .image }, threads: plan.threads) { size in
      var one = options([size])
      one.context = plan.context
      one.memory = Int.max  // what it takes, whether that fits or not
      return try SessionPlan(model, one).peak
    }
    if let svg {
      try writeFile(svg, PlanDrawing.svg(plan, title: printable(model.name, limit: 60)))
    }
    if json {
      try printJSON(
        Output(
          context: plan.context, kv: plan.options.kvType.rawValue, threads: plan.threads, budget: plan.budget,
          peak: plan.peak, rows: plan.rows, bytesReadPerToken: plan.bytesReadPerToken,
          bytesReadToEncode: plan.bytesReadToEncode,
          experts: plan.experts.map { Output.Experts(held: $0.held, all: $0.all) },
          phases: plan.phases.map { phase in
            Output.Phase(
              name: phase.name.rawValue, bytes: phase.byteCount,
              items: Dictionary(uniqueKeysWithValues: phase.items.map { ($0.name.text, $0.byteCount) }))
          },
          arena: plan.arena.buffers.map { buffer in
            Output.Buffer(
              name: buffer.name, bytes: buffer.byteCount, offset: buffer.offset,
              phases: Phases.all.filter { buffer.phases.contains($0.phase) }.map(\.name))
          }, images: images,
          media: shown.map { Output.Medium(kind: $0.kind.rawValue, units: $0.units, tokens: $0.rows) }))
      return
    }
    let parts = plan.parts
    let held = plan.phases.map { plan.sizes(in: $0) }
    var table = TextTable([""] + plan.phases.map(\.name.rawValue))
    for part in parts { table.add([part.name.text] + held.map { readableSize($0[part.name] ?? 0) }) }
    table.add(["together"] + plan.phases.map { readableSize($0.byteCount) })
    var happenings = TextTable(["phase", "what happens"])
    for phase in plan.phases { happenings.add([phase.name.rawValue, phase.name.meaning]) }
    var legend = TextTable(["part", "what it is"])
    for part in parts { legend.add([part.name.text, part.meaning]) }
    var costs = TextTable(["an image of", "takes of the context", "decoded", "at most in all", "and until the answer"])
    for image in images {
      costs.add([
        (image.tiles == 1 ? "" : "\(image.tiles) × ") + "\(image.width) × \(image.height)", "\(image.tokens) tokens",
        readableSize(image.bytes), readableSize(image.peak), image.seconds.map { "about \(fixed($0, 1)) s" } ?? "",
      ])
    }
    Terminal.write(
      """
      \(printable(model.name)): \(plan.summary)

      \(table.text)
      \(happenings.text)
      \(legend.text)
      \(images.isEmpty ? "" : costs.text + "\n")\
      \(plan.streaming.map { $0 + "\n" } ?? "")\
      fits: at most \(readableSize(plan.peak)) of the \(readableSize(plan.budget)) that are \
      \(plan.options.memory == nil ? "free" : "allowed")

      """)
  }
}

extension Plan {
  /// The ways in which the model can look at `image`, or where there is none at an image of any size, fewest tokens first.
  private func images(
    of model: Model, like image: Image?, threads: Int, peak: (MediumSize) throws -> Int
  ) throws -> [Output.Image] {
    let sizes =
      try image.map { (image) throws(SquintError) in try model.choices(for: image) } ?? model.choices(of: .image)
    guard !sizes.isEmpty else { return [] }
    let rate = try Roofline.int8OperationsPerSecond(threads: threads)
    var images: [Output.Image] = []
    for size in sizes {
      let unit = size.unitSize
      images.append(
        Output.Image(
          width: unit.width, height: unit.height, tiles: size.units, tokens: size.rows, bytes: size.decodingBytes,
          peak: try peak(size), seconds: try model.seconds(for: size, at: rate)))
    }
    return images
  }
}

extension SessionPlan.Phase.Name {
  /// What happens in it.
  var meaning: String {
    switch self {
    case .load: "opening the file"
    case .encode: "looking at the media"
    case .prefill: "reading the prompt"
    case .decode: "writing the answer"
    }
  }
}

extension SessionPlan.Item.Name {
  /// What it is called in tables and in JSON.
  var text: String {
    switch self {
    case .process: "process"
    case .threads: "threads"
    case .tokenizer: "tokenizer"
    case .opening: "opening"
    case .pipedMedia: "piped pictures"
    case .decodingMedia: "pictures"
    case .encoder(let kind): kind.encoderModule
    case .projector(let kind): kind.projectorModule
    case .decoder: "decoder"
    case .arena: "arena"
    }
  }
}

extension SessionPlan.Item.Name {
  /// The same, with one name for a module that media of several kinds go through.
  fileprivate var ofModule: Self {
    switch self {
    case .encoder(.video): .encoder(.image)
    case .projector(.video): .projector(.image)
    default: self
    }
  }
}

extension MediaKind {
  /// What the weights of an encoder of these do, for people.
  fileprivate var encoderMeaning: String {
    switch self {
    case .image, .video: "the weights that see, released when all is seen"
    case .audio: "the weights that hear, released when all is heard"
    case .molecule, .series: "the weights that read \(plural), released when all are read"
    }
  }
}

extension SessionPlan {
  /// A part of the memory, for people: the items of phases, with the arena divided.
  enum PartName: Hashable {
    case item(Item.Name)
    case cache, experts, readAhead, working

    var text: String {
      switch self {
      // (In JSON they have the name that they had when all media were images.)
      case .item(.decodingMedia): "media"
      case .item(.pipedMedia): "piped media"
      case .item(let name): name.text
      case .cache: "KV cache"
      case .experts: "experts"
      case .readAhead: "read-ahead"
      case .working: "working"
      }
    }
  }

  struct Part {
    let name: PartName
    let meaning: String
    let colour: String
  }

  /// The parts of the plan, those that stay first.
  var parts: [Part] {
    let media = MediaKind.allCases.filter { $0 != .video }.flatMap { kind in
      [
        Part(
          name: .item(.encoder(kind)),
          meaning: kind.encoderMeaning,
          colour: "#bc6c25"),
        Part(
          name: .item(.projector(kind)), meaning: "the weights that translate it for the text model", colour: "#dda15e"),
      ]
    }
    let known =
      [
        Part(name: .item(.process), meaning: "the program itself", colour: "#6c757d"),
        Part(name: .item(.threads), meaning: "the stacks of its threads", colour: "#adb5bd"),
        Part(name: .item(.tokenizer), meaning: "the vocabulary's tables", colour: "#e9c46a"),
        Part(
          name: .item(.opening), meaning: "unpacking the vocabulary, released when it is done", colour: "#cdb4db"),
        Part(
          name: .item(.pipedMedia), meaning: "what came through pipes, or as text, which is read once only",
          colour: "#c77dff"),
      ] + media + [
        Part(name: .item(.decodingMedia), meaning: "decoding the media, and their numbers", colour: "#7b2cbf"),
        Part(
          name: .item(.decoder), meaning: "the text model's weights, used in place in the file", colour: "#e76f51"),
        Part(
          name: .cache, meaning: "what the model remembers of each of the \(context) positions", colour: "#2a9d8f"),
        Part(name: .experts, meaning: expertsMeaning, colour: "#d62828"),
        Part(name: .readAhead, meaning: "weights that do not stay, as they come from the disk", colour: "#f4a261"),
        Part(name: .working, meaning: "the numbers that are being computed", colour: "#457b9d"),
      ]
    let sizes = phases.map { self.sizes(in: $0) }
    return known.filter { part in sizes.contains { ($0[part.name] ?? 0) > 0 } }
  }

  private var expertsMeaning: String {
    guard let experts else { return "" }
    return "\(grouped(experts.held)) of \(grouped(experts.all)) experts: those used most, and those being read"
  }

  /// The bytes of each part in `phase`; the arena is divided into the KV cache and the rest.
  func sizes(in phase: Phase) -> [PartName: Int] {
    var sizes: [PartName: Int] = [:]
    for item in phase.items {
      guard item.name == .arena else {
        sizes[.item(item.name.ofModule), default: 0] += item.byteCount
        continue
      }
      let isEncoding = phase.name == .encode
      var left = item.byteCount
      func take(_ part: PartName, _ purpose: ArenaPlan.Purpose, in phase: Phases) {
        let bytes = arena.buffers.reduce(0) {
          $0 + ($1.purpose == purpose && !$1.phases.isDisjoint(with: phase) ? $1.byteCount : 0)
        }
        sizes[part] = min(bytes, left)
        left -= min(bytes, left)
      }
      // While media are encoded, the cache's memory may serve the encoder.
      if !isEncoding || options.media == .always { take(.cache, .cache, in: [.prefill, .decode]) }
      if !isEncoding { take(.experts, .experts, in: [.prefill, .decode]) }
      take(.readAhead, .readAhead, in: isEncoding ? .encode : [.prefill, .decode])
      sizes[.working] = left
    }
    return sizes
  }

  /// What does not stay in memory, on one line; nil where all does.
  var streaming: String? {
    var parts: [String] = []
    if bytesReadPerToken > 0 {
      parts.append("\(readableSize(bytesReadPerToken)) of weights are read again for each token")
    }
    if bytesReadToEncode > 0 { parts.append("\(readableSize(bytesReadToEncode)) to encode the media") }
    return parts.isEmpty ? nil : parts.joined(separator: ", and ")
  }

  /// What was planned for, on one line.
  var summary: String {
    "a context of \(context) tokens, KV cache \(options.kvType.rawValue), \(threads) thread\(threads == 1 ? "" : "s")"
      + (options.beams > 1 ? ", \(options.beams) beams" : "") + images
  }

  /// The kinds of media that there are encoders for, but for those of videos, which must be known.
  private var accepted: [MediaKind] {
    MediaKind.allCases.filter { kind in kind != .video && phases.contains { $0.media == kind } }
  }

  private var images: String {
    switch options.media {
    case .none: return ""
    case .always:
      return (accepted.isEmpty ? "" : ", \(accepted.map(\.plural).joined(separator: ", ")) at any time")
        + MediaKind.allCases.compactMap { kind in
          options.known.filter { $0.kind == kind && kind != .image }.map(\.rowsWithSound).max()
            .map { ", \(kind.plural) of at most \(grouped($0)) tokens" }
        }.joined()
    case .once(let sizes):
      func count(_ number: Int, _ word: String) -> String { "\(number) \(word)\(number == 1 ? "" : "s")" }
      var text = ""
      let (images, videos) = (sizes.filter { $0.kind == .image }, sizes.filter { $0.kind == .video })
      if !images.isEmpty {
        text += ", \(count(images.count, "image")) in \(count(images.reduce(0) { $0 + $1.units }, "tile"))"
      }
      if !videos.isEmpty {
        text += ", \(count(videos.count, "video")) of \(count(videos.reduce(0) { $0 + $1.frames }, "frame")), "
        text += count(videos.reduce(0) { $0 + $1.rowsWithSound }, "token")
        if videos.contains(where: { $0.sound != nil }) { text += " with sound" }
      }
      for kind in [MediaKind.audio, .molecule, .series] {
        let these = sizes.filter { $0.kind == kind }
        guard !these.isEmpty else { continue }
        text += ", \(these.count) \(these.count == 1 ? kind.noun : kind.plural) of "
        text += count(these.reduce(0) { $0 + $1.rows }, "token")
      }
      return text
    }
  }
}
