import ArgumentParser
import Squint

struct Plan: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "Says what a session takes, phase by phase, and whether it fits, without reading a weight.")

  @OptionGroup var model: ModelArgument
  @OptionGroup var machine: MachineOptions

  @Option(help: "Plan for beam search over this many sequences.")
  var beams = 1

  @Flag(help: "Print one JSON object.")
  var json = false

  @Option(help: "Draw the plan into this file.", completion: .file(extensions: ["svg"]))
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

    let context: Int
    let kv: String
    let threads: Int
    let budget: Int
    let peak: Int
    let phases: [Phase]
    let arena: [Buffer]
  }

  func run() throws {
    let model = try Model(path: model.model)
    let plan = try SessionPlan(model, machine.session(beams: beams))
    if let svg { try writeFile(svg, plan.drawing(title: model.name)) }
    if json {
      try printJSON(
        Output(
          context: plan.context, kv: plan.options.kvType.rawValue, threads: plan.threads, budget: plan.budget,
          peak: plan.peak,
          phases: plan.phases.map { phase in
            Output.Phase(
              name: phase.name, bytes: phase.byteCount,
              items: Dictionary(uniqueKeysWithValues: phase.items.map { ($0.name, $0.byteCount) }))
          },
          arena: plan.arena.buffers.map { buffer in
            Output.Buffer(
              name: buffer.name, bytes: buffer.byteCount, offset: buffer.offset,
              phases: Phases.all.filter { buffer.phases.contains($0.phase) }.map(\.name))
          }))
      return
    }
    var names: [String] = []
    for item in plan.phases.flatMap(\.items) where !names.contains(item.name) { names.append(item.name) }
    var table = TextTable(["phase"] + names + ["together"])
    for phase in plan.phases {
      table.add(
        [phase.name]
          + names.map { name in phase.items.first { $0.name == name }.map { mebibytes($0.byteCount) } ?? "0" }
          + [mebibytes(phase.byteCount)])
    }
    Terminal.write(table.text)
    Terminal.write(
      "\ncontext \(plan.context) tokens, KV cache \(plan.options.kvType.rawValue), \(plan.threads) threads\n"
        + "fits: at most \(mebibytes(plan.peak)) of \(mebibytes(plan.budget))\n")
  }
}

extension SessionPlan {
  /// A stacked column for each phase against the line of the budget, as SVG.
  func drawing(title: String) -> String {
    let colours = ["process": "#8d99ae", "threads": "#b8c0cc", "tokenizer": "#e9c46a", "arena": "#2a9d8f"]
    let height = 260.0
    // A budget far above the columns would flatten them; then it is named, not drawn.
    let drawsBudget = budget < 2 * peak
    let top = Double(drawsBudget ? max(peak, budget) : peak) * 1.05
    func y(_ bytes: Int) -> Double { 50 + height * (1 - Double(bytes) / top) }
    let width = 130 * phases.count + 220
    var svg = """
      <svg xmlns="http://www.w3.org/2000/svg" width="\(width)" height="360" font-family="sans-serif" font-size="13">
      <rect width="100%" height="100%" fill="white"/>
      <text x="20" y="28" font-size="16">\(escaped(title)): context \(context), KV \(options.kvType.rawValue)</text>

      """
    for (index, phase) in phases.enumerated() {
      let x = 30 + index * 130
      var total = 0
      for item in phase.items where item.byteCount > 0 {
        let bottom = y(total)
        total += item.byteCount
        svg += """
          <rect x="\(x)" y="\(fixed(y(total), 1))" width="90" height="\(fixed(bottom - y(total), 1))" \
          fill="\(colours[item.name] ?? "#e76f51")"><title>\(item.name): \(mebibytes(item.byteCount))</title></rect>

          """
      }
      svg += """
        <text x="\(x + 45)" y="\(fixed(y(total) - 6, 1))" text-anchor="middle">\(mebibytes(total))</text>
        <text x="\(x + 45)" y="330" text-anchor="middle">\(phase.name)</text>

        """
    }
    if drawsBudget {
      svg += """
        <line x1="20" x2="\(130 * phases.count + 20)" y1="\(fixed(y(budget), 1))" y2="\(fixed(y(budget), 1))" \
        stroke="#c1121f" stroke-width="2" stroke-dasharray="6 4"/>

        """
    }
    var names: [String] = []
    for item in phases.flatMap(\.items) where item.byteCount > 0 && !names.contains(item.name) {
      names.append(item.name)
    }
    for (index, name) in names.enumerated() {
      svg += """
        <rect x="\(130 * phases.count + 40)" y="\(60 + index * 24)" width="14" height="14" \
        fill="\(colours[name] ?? "#e76f51")"/>
        <text x="\(130 * phases.count + 62)" y="\(72 + index * 24)">\(name)</text>

        """
    }
    svg += """
      <text x="\(130 * phases.count + 40)" y="\(80 + names.count * 24)" fill="#c1121f">budget \(mebibytes(budget))</text>
      </svg>

      """
    return svg
  }

  private func escaped(_ text: String) -> String {
    String(text.flatMap { $0 == "<" ? "&lt;" : $0 == "&" ? "&amp;" : String($0) })
  }
}
