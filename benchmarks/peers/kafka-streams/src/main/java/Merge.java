import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueIterator;
import org.apache.kafka.streams.state.KeyValueStore;

/** Makes windows of the last panes of a key; panes come in their order. */
final class Merge implements Processor<Windowed<String>, Totals, String, String> {
  static final String STORE = "panes";
  private static final long WINDOW_MS = WindowedMetrics.WINDOW_MS;
  private static final long HOP_MS = WindowedMetrics.HOP_MS;

  private ProcessorContext<String, String> context;
  private KeyValueStore<String, Totals> store;

  @Override
  public void init(ProcessorContext<String, String> context) {
    this.context = context;
    this.store = context.getStateStore(STORE);
  }

  @Override
  public void process(Record<Windowed<String>, Totals> closed) {
    String key = closed.key().key();
    long start = closed.key().window().start();
    List<KeyValue<Long, Totals>> kept = kept(key);
    long last = kept.isEmpty() ? start : kept.get(kept.size() - 1).key + HOP_MS;
    // Windows that ended since the last pane: without new rows, as nothing was measured then.
    for (long end = last + HOP_MS; end <= start && end < last + WINDOW_MS; end += HOP_MS) {
      forward(key, end, kept, closed.timestamp());
    }
    kept.add(KeyValue.pair(start, closed.value()));
    forward(key, start + HOP_MS, kept, closed.timestamp());
    store.put(name(key, start), closed.value());
    kept.stream()
        .filter(pane -> pane.key <= start - WINDOW_MS)
        .forEach(pane -> store.delete(name(key, pane.key)));
  }

  private List<KeyValue<Long, Totals>> kept(String key) {
    List<KeyValue<Long, Totals>> panes = new ArrayList<>();
    try (KeyValueIterator<String, Totals> found =
        store.range(name(key, 0), name(key, Long.MAX_VALUE))) {
      found.forEachRemaining(
          pane ->
              panes.add(
                  KeyValue.pair(
                      Long.parseLong(pane.key.substring(pane.key.lastIndexOf('/') + 1)),
                      pane.value)));
    }
    return panes;
  }

  private void forward(
      String key, long end, List<KeyValue<Long, Totals>> panes, long timestamp) {
    Totals window = null;
    for (KeyValue<Long, Totals> pane : panes) {
      if (pane.key >= end - WINDOW_MS && pane.key < end) {
        window = window == null ? pane.value.copy() : window.add(pane.value);
      }
    }
    if (window != null) {
      for (KeyValue<String, String> result : window.results(key, end - WINDOW_MS)) {
        context.forward(new Record<>(result.key, result.value, timestamp));
      }
    }
  }

  private static String name(String key, long start) {
    return String.format(Locale.ROOT, "%s/%019d", key, start);
  }
}
