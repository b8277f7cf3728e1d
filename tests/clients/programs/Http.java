import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.List;

/** The JDK's HttpClient, without a library. */
public class Http {
    static final HttpClient CLIENT = HttpClient.newHttpClient();
    static final String CHAT = "smollm2-135m-instruct", EMBEDDING = "all-minilm-l6-v2";
    static final List<String> RESULTS = new ArrayList<>();

    interface Check {
        void run() throws Exception;
    }

    static HttpRequest request(String path, String body) {
        return HttpRequest.newBuilder(URI.create(System.getenv("OPENAI_BASE_URL") + path))
            .header("Authorization", "Bearer " + System.getenv("OPENAI_API_KEY"))
            .header("Content-Type", "application/json")
            .POST(HttpRequest.BodyPublishers.ofString(body)).build();
    }

    static String chat(String model, String more) {
        return "{\"model\": \"" + model + "\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]" + more + "}";
    }

    static void check(boolean is, String words) {
        if (!is) throw new AssertionError(words);
    }

    static void expect(String path, String body, int status, String... words) throws Exception {
        HttpResponse<String> answer = CLIENT.send(request(path, body), HttpResponse.BodyHandlers.ofString());
        check(answer.statusCode() == status, answer.statusCode() + " " + answer.body());
        for (String word : words) check(answer.body().contains(word), answer.body());
    }

    static void run(String name, Check check) {
        try {
            check.run();
            RESULTS.add("\"" + name + "\": true");
        } catch (Throwable error) {
            error.printStackTrace();
            RESULTS.add("\"" + name + "\": false");
        }
    }

    static int lines(String body, int most) throws Exception {
        var answer = CLIENT.send(request("/chat/completions", body), HttpResponse.BodyHandlers.ofInputStream());
        int found = 0;
        try (var reader = new BufferedReader(new InputStreamReader(answer.body()))) {
            for (String line; found < most && (line = reader.readLine()) != null; ) if (line.startsWith("data: {")) found++;
        }
        return found;
    }

    public static void main(String[] words) {
        String schema = "{\"type\": \"object\", \"properties\": {\"city\": {\"type\": \"string\"}}, \"required\": [\"city\"]}";
        run("chat", () -> expect("/chat/completions", chat(CHAT, ""), 200, "\"content\":\""));
        run("stream", () -> check(lines(chat(CHAT, ", \"stream\": true"), 9999) > 2, "few pieces"));
        run("tools", () -> expect("/chat/completions", chat(CHAT, ", \"tool_choice\": \"required\", \"tools\": [{\"type\":"
            + " \"function\", \"function\": {\"name\": \"weather\", \"parameters\": " + schema + "}}]"), 200, "\"weather\"", "city"));
        run("json_schema", () -> expect("/chat/completions", chat(CHAT, ", \"response_format\": {\"type\": \"json_schema\","
            + " \"json_schema\": {\"name\": \"city\", \"schema\": " + schema + "}}"), 200, "\\\"city\\\""));
        run("embeddings", () -> expect("/embeddings",
            "{\"model\": \"" + EMBEDDING + "\", \"input\": [\"a\", \"b\"]}", 200, "\"embedding\":["));
        run("errors", () -> expect("/chat/completions", chat("nope", ""), 404, "model_not_found"));
        run("cancel", () -> check(lines(chat(CHAT, ", \"stream\": true, \"max_tokens\": 1000, \"ignore_eos\": true"), 3) == 3, "no stream"));
        System.out.println("{\"version\": \"" + Runtime.version().feature() + "\", \"results\": {"
            + String.join(", ", RESULTS) + "}}");
    }
}
