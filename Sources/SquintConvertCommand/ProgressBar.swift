import SquintConversion
import SquintFile

/// A line on stderr that says how far the conversion is, where stderr is a terminal.
final class ProgressBar: Sendable {
  private let name: String
  private let isShown = isatty(STDERR_FILENO) == 1
  private let start = ContinuousClock.now
  private nonisolated(unsafe) var last: ContinuousClock.Instant?

  private static let interval = Duration.milliseconds(100)
  private static let width = 30

  init(name: String) {
    self.name = name.split(separator: "/").last.map(String.init) ?? name
  }

  /// Shows `progress`, at most ten times a second. Called from one thread at a time.
  func update(_ progress: ConversionProgress) {
    guard isShown else { return }
    let now = ContinuousClock.now
    if let last, now - last < Self.interval { return }
    last = now
    let fraction = progress.totalBytes == 0 ? 1 : Double(progress.writtenBytes) / Double(progress.totalBytes)
    let seconds = max((now - start) / .seconds(1), 0.001)
    let rate = Double(progress.writtenBytes) / seconds
    let left = rate > 0 ? Double(progress.totalBytes - progress.writtenBytes) / rate : 0
    let filled = Int(fraction * Double(Self.width))
    let bar = String(repeating: "█", count: filled) + String(repeating: "░", count: Self.width - filled)
    writeToStandardError(
      "\r\u{1B}[2K\(name) \(bar) \(Int(fraction * 100))% \(megabytes(progress.writtenBytes)) of "
        + "\(megabytes(progress.totalBytes)) MB  \(Int(rate / 1e6)) MB/s  \(duration(left)) left")
  }

  /// Removes the line.
  func clear() {
    guard isShown, last != nil else { return }
    writeToStandardError("\r\u{1B}[2K")
  }

  private func megabytes(_ bytes: Int) -> String { grouped(bytes / 1_000_000) }

  private func duration(_ seconds: Double) -> String {
    let total = Int(min(seconds, 360_000).rounded(.up))
    return total < 60 ? "\(total) s" : "\(total / 60) min \(total % 60) s"
  }
}
