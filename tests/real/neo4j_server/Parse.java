// Prints what the server's own parser makes of each Authorization header.
import org.neo4j.server.rest.dbms.AuthorizationHeaders;

class Parse {
    public static void main(String[] headers) {
        for (String header : headers) {
            var parsed = AuthorizationHeaders.decode(header);
            System.out.println(parsed.scheme() + " " + String.join(" ", parsed.values()));
        }
    }
}
