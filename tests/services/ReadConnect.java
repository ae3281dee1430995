import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Date;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import org.apache.kafka.connect.data.Field;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.json.JsonConverter;

/** Reads messages, one a line, as Kafka Connect does, and prints what it sees: doubles as {"double": their bits}, times as {"millis": …}. */
public class ReadConnect {
    public static void main(String[] args) throws Exception {
        JsonConverter converter = new JsonConverter();
        converter.configure(Map.of("schemas.enable", "true"), false);
        ObjectMapper json = new ObjectMapper();
        BufferedReader lines = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        StringBuilder out = new StringBuilder();
        for (String line = lines.readLine(); line != null; line = lines.readLine()) {
            Object value = converter.toConnectData("topic", line.getBytes(StandardCharsets.UTF_8)).value();
            out.append(json.writeValueAsString(shown(value))).append('\n');
        }
        System.out.write(out.toString().getBytes(StandardCharsets.UTF_8));
        System.out.flush();
    }

    private static Object shown(Object value) {
        if (value instanceof Struct struct) {
            struct.validate();
            Map<String, Object> fields = new LinkedHashMap<>();
            for (Field field : struct.schema().fields()) {
                fields.put(field.name(), shown(struct.get(field)));
            }
            return fields;
        }
        if (value instanceof List<?> elements) {
            List<Object> shown = new ArrayList<>();
            elements.forEach(element -> shown.add(shown(element)));
            return shown;
        }
        if (value instanceof Double number) {
            return Map.of("double", Long.toString(Double.doubleToRawLongBits(number)));
        }
        if (value instanceof Date time) {
            return Map.of("millis", time.getTime());
        }
        return value;
    }
}
