import SquintFile

/// A date and time of day in the Gregorian calendar, as `strftime_now` prints it.
package struct TemplateDate: Sendable, Equatable {
  package var year: Int
  /// 1 to 12.
  package var month: Int
  /// 1 to 31.
  package var day: Int
  package var hour: Int
  package var minute: Int
  package var second: Int
  package var microsecond: Int

  package init(
    year: Int, month: Int, day: Int, hour: Int = 0, minute: Int = 0, second: Int = 0, microsecond: Int = 0
  ) {
    self.year = year
    self.month = month
    self.day = day
    self.hour = hour
    self.minute = minute
    self.second = second
    self.microsecond = microsecond
  }

  /// The machine's local time.
  package static func now() -> TemplateDate {
    var clock = timespec()
    clock_gettime(CLOCK_REALTIME, &clock)
    var seconds = clock.tv_sec
    var parts = tm()
    localtime_r(&seconds, &parts)
    return TemplateDate(
      year: Int(parts.tm_year) + 1900, month: Int(parts.tm_mon) + 1, day: Int(parts.tm_mday),
      hour: Int(parts.tm_hour), minute: Int(parts.tm_min), second: Int(parts.tm_sec),
      microsecond: Int(clock.tv_nsec) / 1000)
  }

  private static let months = [
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
  ]
  private static let days = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]

  private var isLeap: Bool { year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) }

  /// 1 for the first of January.
  private var dayOfYear: Int {
    let before = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334]
    return before[month - 1] + (isLeap && month > 2 ? 1 : 0) + day
  }

  /// 0 for Monday.
  private var weekday: Int {
    let last = year - 1
    let total = last * 365 + last / 4 - last / 100 + last / 400 + dayOfYear
    return (total + 6) % 7
  }

  /// Python's `strftime` in the C locale, for the directives that published templates use and a few beside them.
  ///
  /// - Throws: the directive that is not supported.
  package func formatted(_ format: String) throws(UnknownDirective) -> String {
    guard (1...9999).contains(year), (1...12).contains(month), (1...31).contains(day) else { return "" }
    var result = ""
    var scalars = format.unicodeScalars.makeIterator()
    while let scalar = scalars.next() {
      guard scalar == "%" else {
        result.unicodeScalars.append(scalar)
        continue
      }
      let directive = scalars.next()
      guard let directive, let text = text(for: directive) else {
        throw UnknownDirective(text: "%" + (directive.map { String($0) } ?? ""))
      }
      result += text
    }
    return result
  }

  package struct UnknownDirective: Error {
    package let text: String
  }

  private func text(for directive: Unicode.Scalar) -> String? {
    func padded(_ value: Int) -> String { value < 10 ? "0\(value)" : String(value) }
    let day = Self.days[weekday]
    let month = Self.months[self.month - 1]
    switch directive {
    case "a": return String(day.prefix(3))
    case "A": return day
    case "b": return String(month.prefix(3))
    case "B": return month
    case "d": return padded(self.day)
    case "H": return padded(hour)
    case "I": return padded(hour % 12 == 0 ? 12 : hour % 12)
    case "m": return padded(self.month)
    case "M": return padded(minute)
    case "p": return hour < 12 ? "AM" : "PM"
    case "S": return padded(second)
    case "y": return padded(year % 100)
    case "Y": return String(year)
    case "%": return "%"
    default: return nil
    }
  }
}
